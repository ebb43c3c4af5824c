"""The soak test: devices on all transports, faults in turn, and an account of every message."""
