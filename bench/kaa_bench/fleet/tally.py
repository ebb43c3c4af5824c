"""What the clients of one process have seen, as they report it to the run."""

import msgspec


class Overlap(msgspec.Struct, frozen=True):
    """An old connection of a client that was still open one round trip after the CONNACK of the new one."""

    at: float
    """When the CONNACK came, as Unix time."""
    seconds: float
    """From the CONNACK to the end of the old connection."""
    round_trip: float
    """Of PINGREQ and PINGRESP, after the CONNACK."""
    ended: bool
    """Whether the old connection has ended at all while that was watched."""


class Tally(msgspec.Struct):
    """Counts of what was done and seen."""

    connects: int = 0
    refused: int = 0
    """Connections that did not come to a CONNACK, or were refused by it."""
    resumed: int = 0
    """CONNACKs with a session, of clients that had one."""
    begun: int = 0
    """CONNACKs without a session, of clients that had one: its worker was killed."""
    taken_over: int = 0
    aborted: int = 0
    left: int = 0
    cut: int = 0
    """Connections that the gateway has ended."""
    sent: int = 0
    acknowledged: int = 0
    pushed: int = 0
    """Pushes that were delivered, of both QoS."""
    repeated: int = 0
    """Pushes of QoS 1 that came again before their acknowledgement was known to have arrived."""
    twice: list[float] = []
    """When pushes of QoS 2 were delivered again, as Unix time."""
    after_acknowledgement: list[float] = []
    """When pushes of QoS 1 came again although the gateway has had their acknowledgement."""
    overlaps: list[Overlap] = []
