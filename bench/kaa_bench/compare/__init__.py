"""Compares the gateway with other servers: rows, measurement, report."""
