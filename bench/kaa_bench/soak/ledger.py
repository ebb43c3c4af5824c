"""Records the outcome of each message of a device, in one byte a message."""

from dataclasses import dataclass, fields

ACKNOWLEDGED = 1
REFUSED = 2
"""The device got an error for the message, perhaps besides other answers."""
DELIVERED = 4
ANSWERED = 8
LOST_WITH_NATS = 16
"""The message was missing at the end of a span in which the NATS server was killed."""

UNDER_WAY_MAX = 16
"""Unacknowledged messages of a device that may be acknowledged in a later span."""


@dataclass
class Account:
    """The sums of ledgers."""

    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    delivered: int = 0
    duplicated: int = 0
    answered: int = 0
    lost: int = 0
    """Messages that were acknowledged and not delivered, although NATS was not killed."""
    lost_with_nats: int = 0
    """Messages that were acknowledged and not delivered when the NATS server was killed."""

    def add(self, other: "Account") -> None:
        """Add the sums of another."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


class Ledger:
    """The messages of a device, numbered from 1."""

    def __init__(self) -> None:
        self._states = bytearray(1)
        self._closed = 1
        self._under_way: list[int] = []
        """The messages of earlier spans that were not acknowledged in them."""
        self.duplicated = 0

    @property
    def sent(self) -> int:
        """The number of messages sent so far."""
        return len(self._states) - 1

    def send(self) -> int:
        """Return the number of the next message, and count it as sent."""
        self._states.append(0)
        return len(self._states) - 1

    def acknowledge(self, number: int) -> None:
        """Record that a message was acknowledged."""
        self._states[number] |= ACKNOWLEDGED

    def refuse(self, number: int) -> None:
        """Record that a message was refused."""
        self._states[number] |= REFUSED

    def answer(self, number: int) -> None:
        """Record that the extension has answered a message."""
        self._states[number] |= ANSWERED

    def deliver(self, number: int) -> None:
        """Record that a handler of the extension got a message."""
        if self._states[number] & DELIVERED:
            self.duplicated += 1
        self._states[number] |= DELIVERED

    def missing(self) -> list[int]:
        """Return the number of messages of this span that are acknowledged and not delivered."""
        return [number for number in self._open() if is_missing(self._states[number])]

    def _open(self) -> list[int]:
        return [*self._under_way, *range(self._closed, len(self._states))]

    def close(self, *, nats_died: bool) -> None:
        """End a span. Missing messages are lost, or excused if the NATS server was killed in it."""
        if nats_died:
            for number in self.missing():
                self._states[number] |= LOST_WITH_NATS
        waiting = [number for number in self._open() if not self._states[number] & (ACKNOWLEDGED | REFUSED)]
        self._under_way = waiting[-UNDER_WAY_MAX:]
        self._closed = len(self._states)

    def account(self, place: int = 0, places: int = 1) -> Account:
        """Return the sums; with `places`, of the messages whose number leaves the remainder `place`.

        Duplicates are not told apart, and count at the first place.
        """
        states = self._states[place::places] if place else self._states[places::places]
        account = Account(sent=len(states), duplicated=0 if place else self.duplicated)
        for state in states:
            account.refused += bool(state & REFUSED)
            account.acknowledged += state & (ACKNOWLEDGED | REFUSED) == ACKNOWLEDGED
            account.delivered += bool(state & DELIVERED)
            account.answered += bool(state & ANSWERED)
            if is_missing(state):
                account.lost_with_nats += bool(state & LOST_WITH_NATS)
                account.lost += not state & LOST_WITH_NATS
        return account


def is_missing(state: int) -> bool:
    """Return whether a message was acknowledged without an error and is not delivered."""
    return state & (ACKNOWLEDGED | REFUSED | DELIVERED) == ACKNOWLEDGED
