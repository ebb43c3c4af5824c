"""The device simulator: native load at full speed or at a fixed rate, and fleets of devices from a scenario."""
