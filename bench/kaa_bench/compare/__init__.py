"""The comparison with other servers: rows, measurement, report."""
