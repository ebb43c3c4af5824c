"""Units of sizes and times, and the bound of counts that have no other."""

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB

DAY = 86400.0
"""Seconds."""

MANY = 100_000_000
"""Upper bound of counts that only memory limits."""
