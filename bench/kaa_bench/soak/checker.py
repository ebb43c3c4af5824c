"""Checks six properties of the history of a device. They must hold under every fault.

A property may be excused by a disturbance that docs/guarantees.md names for it, at the time of the message. Each check
counts what it has looked at, so that a property that nothing has tried is seen.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kaa_bench.soak.history import History, Message

IN_MEMORY_S = 10.0
"""How long after its acknowledgement a message may be in the memory of the NATS server."""
REPEATED_S = 10.0
"""How long after a disturbance the gateway or a stream may send messages again."""
UNHEARD_S = 10.0
"""How long after a disturbance of NATS a gateway may miss an event."""
REVOKED_S = 2.0
"""How long a gateway may take to end a connection after its revocation was sent."""
LATE_S = 3.0
"""How much later than its deadline an answer may be seen, on a machine that is busy."""

FORGETFUL = frozenset({"nats_killed"})
"""Disturbances that lose what core NATS has confirmed."""
OF_NATS = frozenset({"nats_network_reset", "nats_network_silent", "nats_stopped", "nats_killed"})
"""Disturbances after which a gateway sends unconfirmed messages again, and of which it hears no event."""
REDELIVERING = frozenset({"extension_killed"})
"""Disturbances after which a stream sends messages again."""
CUTTING = frozenset({"worker_killed", "rolling_restart", "device_network_reset"})
"""Disturbances that take a device's connection away."""


class Disturbance(NamedTuple):
    """A fault, and when it began and ended."""

    name: str
    began: float
    ended: float


class Promises(NamedTuple):
    """What the gateway promises for a device's messages."""

    durable: bool = False
    """A stream stores them."""
    once: bool = False
    """They are sent at QoS 2."""
    ordered: bool = True
    """Their handlers record connections and order."""
    deadline_s: float | None = None
    """The time in which each is answered, if they are requests."""
    redelivery_s: float = 5.0
    """How long a stream waits for the acknowledgement of a durable extension."""


class Violation(NamedTuple):
    """A message that breaks a property."""

    property: str
    token: str
    number: int
    detail: str

    def __str__(self) -> str:
        return f"{self.property}: message {self.number} of {self.token} {self.detail}"


@dataclass
class Finding:
    """The result of a property: how many cases were checked, how many of them a disturbance excuses, and violations."""

    checked: int = 0
    excused: int = 0
    violations: list[Violation] = field(default_factory=list)

    def add(self, other: "Finding") -> None:
        """Add the finding of another device."""
        self.checked += other.checked
        self.excused += other.excused
        self.violations += other.violations


class Disturbances:
    """What disturbed a soak, in the order of time."""

    def __init__(self, disturbances: Iterable[Disturbance] = ()) -> None:
        self._all = sorted(disturbances, key=lambda each: each.began)

    def touch(self, names: Iterable[str], began: float, ended: float, after: float = 0.0) -> bool:
        """Return whether a disturbance of these names, or the time `after` it, overlaps a time."""
        wanted = frozenset(names)
        return any(
            each.name in wanted and each.began <= ended and each.ended + after >= began for each in self._all
        )


Property = Callable[[History, Promises, Disturbances], Finding]


def check(
    history: History, promises: Promises, disturbances: Sequence[Disturbance] = ()
) -> dict[str, Finding]:
    """Return the finding of each property."""
    ordered = Disturbances(disturbances)
    return {name: of(history, promises, ordered) for name, of in PROPERTIES.items()}


def lost(message: Message, promises: Promises, disturbances: Disturbances) -> bool | None:
    """Return whether a message was lost after its acknowledgement; None if the death of NATS excuses that."""
    if not message.is_missing:
        return False
    assert message.acknowledged is not None
    until = message.acknowledged + IN_MEMORY_S
    if not promises.durable and disturbances.touch(FORGETFUL, message.sent, until):
        return None
    return True


def _no_loss(history: History, promises: Promises, disturbances: Disturbances) -> Finding:
    finding = Finding()
    for message in history.messages:
        if message.acknowledged is None or message.refused is not None:
            continue
        finding.checked += 1
        is_lost = lost(message, promises, disturbances)
        if is_lost is None:
            finding.excused += 1
        elif is_lost:
            finding.violations.append(
                Violation("no loss", history.token, message.number, "was acknowledged and not delivered")
            )
    return finding


def _order(history: History, promises: Promises, disturbances: Disturbances) -> Finding:
    """Check that a replica gets the messages of a connection in the order in which they were sent."""
    finding = Finding()
    if not promises.ordered:
        return finding
    first: dict[tuple[int, int, int], float] = {}
    """The first delivery by connection, replica and message."""
    for message in history.messages:
        for delivery in message.deliveries:
            key = delivery.connection, delivery.replica, message.number
            first[key] = min(delivery.at, first.get(key, delivery.at))
    last: dict[tuple[int, int], tuple[float, int]] = {}
    """The latest delivery so far by connection and replica, with its message."""
    for (connection, replica, number), at in sorted(first.items()):
        latest, before = last.get((connection, replica), (0.0, 0))
        last[connection, replica] = max((latest, before), (at, number))
        if not before:
            continue
        finding.checked += 1
        if at >= latest:
            continue
        sent = history.messages[before - 1].sent
        if disturbances.touch(OF_NATS | REDELIVERING, sent, latest, REPEATED_S):
            finding.excused += 1
        else:
            finding.violations.append(
                Violation(
                    "order",
                    history.token,
                    number,
                    f"was delivered before message {before} of the same connection",
                )
            )
    return finding


def _once(history: History, promises: Promises, disturbances: Disturbances) -> Finding:
    """Check that a message at QoS 2 is delivered once for each connection on which it was sent."""
    finding = Finding()
    if not promises.once:
        return finding
    for message in history.messages:
        for connection in {delivery.connection for delivery in message.deliveries}:
            finding.checked += 1
            times = sorted(each.at for each in message.deliveries if each.connection == connection)
            if len(times) == 1:
                continue
            redelivered = promises.durable and times[1] - times[0] >= promises.redelivery_s
            names = OF_NATS | REDELIVERING
            if redelivered or disturbances.touch(names, message.sent, times[-1], REPEATED_S):
                finding.excused += 1
            else:
                finding.violations.append(
                    Violation(
                        "once",
                        history.token,
                        message.number,
                        f"was delivered {len(times)} times of one connection",
                    )
                )
    return finding


def _own_answers(history: History, promises: Promises, disturbances: Disturbances) -> Finding:
    """Check that each answer says that it belongs to the message to which it came."""
    finding = Finding()
    for message in history.messages:
        for answer in message.answers:
            finding.checked += 1
            if (answer.token, answer.number) != (history.token, message.number):
                finding.violations.append(
                    Violation(
                        "own answers",
                        history.token,
                        message.number,
                        f"got the answer to message {answer.number} of {answer.token}",
                    )
                )
    for answer in history.strays:
        finding.checked += 1
        finding.violations.append(
            Violation("own answers", history.token, answer.number, f"of {answer.token} was never sent here")
        )
    return finding


def _revoked(history: History, promises: Promises, disturbances: Disturbances) -> Finding:
    """Check that a connection gets no push that was sent after its revocation."""
    finding = Finding()
    for revocation in history.revocations:
        finding.checked += 1
        late = [
            push
            for push in history.pushes
            if push.connection == revocation.connection and push.sent > revocation.at + REVOKED_S
        ]
        if not late:
            continue
        if disturbances.touch(OF_NATS, revocation.at, revocation.at + REVOKED_S, UNHEARD_S):
            finding.excused += 1
        else:
            finding.violations.append(
                Violation(
                    "no push after revocation",
                    history.token,
                    0,
                    f"got {len(late)} pushes, the last {late[-1].sent - revocation.at:.1f} s after its revocation",
                )
            )
    return finding


def _deadline(history: History, promises: Promises, disturbances: Disturbances) -> Finding:
    """Check that each request is answered or refused in time, if its connection lives."""
    finding = Finding()
    if promises.deadline_s is None:
        return finding
    for message in history.messages:
        heard = message.settled if message.settled is not None else message.gave_up
        if heard is None:
            continue  # the connection has ended
        finding.checked += 1
        if message.settled is not None and heard - message.sent <= promises.deadline_s + LATE_S:
            continue
        if disturbances.touch(CUTTING, message.sent, heard):
            finding.excused += 1
        else:
            finding.violations.append(
                Violation(
                    "deadline",
                    history.token,
                    message.number,
                    f"was answered after {heard - message.sent:.1f} s, or not at all",
                )
            )
    return finding


PROPERTIES: dict[str, Property] = {
    "no loss": _no_loss,
    "order": _order,
    "once": _once,
    "own answers": _own_answers,
    "no push after revocation": _revoked,
    "deadline": _deadline,
}
"""The properties by name."""
