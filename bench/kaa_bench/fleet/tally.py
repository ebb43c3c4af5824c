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
    found: bool
    """Whether the new connection has found the session."""


class Loss(msgspec.Struct, frozen=True):
    """A client that had a session, and was given a new one."""

    client: str
    at: float
    """When the CONNACK came, as Unix time."""
    since: float
    """When the client was connected before that."""
    gateway: int
    """The gateway at which it was."""
    next_gateway: int
    """The gateway that gave it the new one."""


class Missing(msgspec.Struct, frozen=True):
    """A push or an answer that has not come at the end, although its session was not lost."""

    kind: str
    sent_at: float
    """When the message that it belongs to was sent, as Unix time."""


class Unanswered(msgspec.Struct, frozen=True):
    """A connection that was not opened, or a packet that was not answered, in time."""

    client: str
    awaited: str
    """Such as CONNACK."""
    gateway: int
    since: float
    """When that was asked for, as Unix time."""
    at: float
    """When the client gave up."""


class Tally(msgspec.Struct):
    """Counts of what was done and seen."""

    connects: int = 0
    by_password: int = 0
    """CONNECTs of these that were authenticated by a password."""
    by_certificate: int = 0
    refused: int = 0
    """Connections that did not come to a CONNACK, or were refused by it."""
    resumed: int = 0
    """CONNACKs with a session, of clients that had one."""
    begun: list[Loss] = []
    """CONNACKs without a session, of clients that had one."""
    taken_over: int = 0
    aborted: int = 0
    left: int = 0
    cut: int = 0
    """Connections that the gateway has ended."""
    sent: int = 0
    acknowledged: int = 0
    pushed: int = 0
    """Pushes that were delivered, of both QoS."""
    answered: int = 0
    """Answers that came, for the first time."""
    missing: list[Missing] = []
    unanswered: list[Unanswered] = []
    repeated: int = 0
    """Pushes of QoS 1 that came again before their acknowledgement was known to have arrived."""
    twice: list[float] = []
    """When pushes of QoS 2 were delivered again, as Unix time."""
    after_acknowledgement: list[float] = []
    """When pushes of QoS 1 came again although the gateway has had their acknowledgement."""
    overlaps: list[Overlap] = []
