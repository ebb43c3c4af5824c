"""The counts of a fleet: counters, a gauge, and latencies."""

from collections import Counter
from dataclasses import dataclass, field

from kaa_bench.load.histogram import Histogram

LATE_S = 0.1
"""A message that is sent this much too late counts as late: the simulator is overloaded."""
NANOSECONDS = 1e9


@dataclass
class Tally:
    """The counts of a fleet in a process, or the sum of several."""

    connected: int = 0
    reached: int = 0
    """The number of devices that were connected at some time."""
    connects: int = 0
    sent: int = 0
    acknowledged: int = 0
    late: int = 0
    pushes: int = 0
    applied: int = 0
    commands: int = 0
    downlink_sent: int = 0
    downlink_received: int = 0
    downlink_latency: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)

    def done(self, intended: float, now: float) -> None:
        """Count an acknowledged message that was due at `intended`."""
        self.acknowledged += 1
        self.latency.record(max(0, int((now - intended) * NANOSECONDS)))

    def add(self, other: "Tally") -> None:
        """Add the counts of another process."""
        self.connected += other.connected
        self.reached += other.reached
        self.connects += other.connects
        self.sent += other.sent
        self.acknowledged += other.acknowledged
        self.late += other.late
        self.pushes += other.pushes
        self.applied += other.applied
        self.commands += other.commands
        self.downlink_sent += other.downlink_sent
        self.downlink_received += other.downlink_received
        self.downlink_latency.merge(other.downlink_latency)
        self.errors.update(other.errors)
        self.latency.merge(other.latency)
