"""What became of each message of a device: one byte a message, so that an hour of them fits."""

from dataclasses import dataclass, fields

ACKNOWLEDGED = 1
REFUSED = 2
"""The device was told that the message went nowhere, whatever else it was told."""
DELIVERED = 4
ANSWERED = 8
LOST_WITH_NATS = 16
"""Missing when a span of time was closed in which the NATS server was killed."""

UNDER_WAY_MAX = 16
"""Messages of a device that a later span of time may still see acknowledged; as many as it sends without that."""


@dataclass
class Account:
    """The sums of one or more ledgers."""

    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    delivered: int = 0
    duplicated: int = 0
    answered: int = 0
    lost: int = 0
    """Acknowledged and never delivered, though NATS lived."""
    lost_with_nats: int = 0
    """Acknowledged and never delivered, around the death of the NATS server."""

    def add(self, other: "Account") -> None:
        """Take in the sums of another."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


class Ledger:
    """The messages of one device, numbered from 1."""

    def __init__(self) -> None:
        self._states = bytearray(1)
        self._closed = 1
        self._under_way: list[int] = []
        """Those of former spans that were not acknowledged by then."""
        self.duplicated = 0

    @property
    def sent(self) -> int:
        """Messages sent so far."""
        return len(self._states) - 1

    def send(self) -> int:
        """The number of the next message, which is about to be sent."""
        self._states.append(0)
        return len(self._states) - 1

    def acknowledge(self, number: int) -> None:
        """The device was told that the message has been taken."""
        self._states[number] |= ACKNOWLEDGED

    def refuse(self, number: int) -> None:
        """The device was told that the message was not taken."""
        self._states[number] |= REFUSED

    def answer(self, number: int) -> None:
        """The answer of the extension has come."""
        self._states[number] |= ANSWERED

    def deliver(self, number: int) -> None:
        """A handler of the extension had the message."""
        if self._states[number] & DELIVERED:
            self.duplicated += 1
        self._states[number] |= DELIVERED

    def missing(self) -> list[int]:
        """The messages since the last `close`, or under way then, that are acknowledged and not delivered."""
        return [number for number in self._open() if is_missing(self._states[number])]

    def _open(self) -> list[int]:
        return [*self._under_way, *range(self._closed, len(self._states))]

    def close(self, *, nats_died: bool) -> None:
        """End a span of time: what is missing of it belongs to the NATS server's death, or to nothing that may be."""
        if nats_died:
            for number in self.missing():
                self._states[number] |= LOST_WITH_NATS
        waiting = [number for number in self._open() if not self._states[number] & (ACKNOWLEDGED | REFUSED)]
        self._under_way = waiting[-UNDER_WAY_MAX:]
        self._closed = len(self._states)

    def account(self) -> Account:
        """The sums so far."""
        account = Account(sent=self.sent, duplicated=self.duplicated)
        for state in self._states:
            account.refused += bool(state & REFUSED)
            account.acknowledged += state & (ACKNOWLEDGED | REFUSED) == ACKNOWLEDGED
            account.delivered += bool(state & DELIVERED)
            account.answered += bool(state & ANSWERED)
            if is_missing(state):
                account.lost_with_nats += bool(state & LOST_WITH_NATS)
                account.lost += not state & LOST_WITH_NATS
        return account


def is_missing(state: int) -> bool:
    """Return whether a message was acknowledged without an error, and is not delivered."""
    return state & (ACKNOWLEDGED | REFUSED | DELIVERED) == ACKNOWLEDGED
