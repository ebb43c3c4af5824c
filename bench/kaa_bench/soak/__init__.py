"""The soak: devices on all transports, faults on a schedule, and an account of every message."""
