"""What a fleet has done: counts that only grow, one gauge, and latencies."""

from collections import Counter
from dataclasses import dataclass, field

from kaa_bench.load.histogram import Histogram

LATE_S = 0.1
"""A message that leaves so much later than it should counts as late: the simulator had too much to do."""
NANOSECONDS = 1e9


@dataclass
class Tally:
    """Of one fleet in one process, or of several added up."""

    connected: int = 0
    reached: int = 0
    """Devices that were connected at some time."""
    connects: int = 0
    sent: int = 0
    acknowledged: int = 0
    late: int = 0
    pushes: int = 0
    applied: int = 0
    commands: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)

    def done(self, intended: float, now: float) -> None:
        """A message that was meant for `intended` is acknowledged."""
        self.acknowledged += 1
        self.latency.record(int((now - intended) * NANOSECONDS))

    def add(self, other: "Tally") -> None:
        """Add what another process has counted."""
        self.connected += other.connected
        self.reached += other.reached
        self.connects += other.connects
        self.sent += other.sent
        self.acknowledged += other.acknowledged
        self.late += other.late
        self.pushes += other.pushes
        self.applied += other.applied
        self.commands += other.commands
        self.errors.update(other.errors)
        self.latency.merge(other.latency)
