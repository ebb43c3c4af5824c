"""The history of a device's messages: what happened to each of them, and when.

Times are seconds of CLOCK_MONOTONIC, which is the same in all processes of a machine. A device numbers its connections,
and its messages from 1. What must be true of a history is in checker.py.
"""

import time
from typing import NamedTuple


class Delivery(NamedTuple):
    """A handler got a message that the device had sent on `connection`. `replica` is the handler's process."""

    at: float
    connection: int
    replica: int


class Answer(NamedTuple):
    """A device got an answer that says to which message of which device it belongs."""

    at: float
    token: str
    number: int


class Push(NamedTuple):
    """A device got a push on `connection`."""

    sent: float
    received: float
    connection: int


class Revocation(NamedTuple):
    """A device lost its registration while it was connected with `connection`."""

    at: float
    connection: int


class Message:
    """What happened to a message. A time is None if it did not happen."""

    __slots__ = (
        "acknowledged",
        "answers",
        "connection",
        "deliveries",
        "gave_up",
        "number",
        "refused",
        "sent",
    )

    def __init__(self, number: int, connection: int, sent: float) -> None:
        self.number = number
        self.connection = connection
        """The connection on which the device sent it for the first time."""
        self.sent = sent
        self.acknowledged: float | None = None
        self.refused: float | None = None
        self.gave_up: float | None = None
        self.deliveries: tuple[Delivery, ...] = ()
        self.answers: tuple[Answer, ...] = ()

    @property
    def is_missing(self) -> bool:
        """Return whether it was acknowledged without an error and is not delivered."""
        return self.acknowledged is not None and self.refused is None and not self.deliveries

    @property
    def settled(self) -> float | None:
        """Return when the device first heard of it: an acknowledgement, a refusal or an answer."""
        times = [
            self.acknowledged,
            self.refused,
            min((answer.at for answer in self.answers), default=None),
        ]
        return min((at for at in times if at is not None), default=None)


class History:
    """The history of a device. Each method records an event, of now unless `at` is given."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.connection = 0
        """The number of the connection that is in use, or was the last."""
        self.messages: list[Message] = []
        self.strays: list[Answer] = []
        """Answers to messages that the device has not sent."""
        self.pushes: list[Push] = []
        self.revocations: list[Revocation] = []
        self._missing: set[int] = set()

    @property
    def sent(self) -> int:
        """The number of messages sent so far."""
        return len(self.messages)

    def connect(self) -> int:
        """Record a new connection, and return its number."""
        self.connection += 1
        return self.connection

    def send(self, at: float | None = None) -> int:
        """Record a new message, and return its number."""
        self.messages.append(Message(len(self.messages) + 1, self.connection, _now(at)))
        return len(self.messages)

    def acknowledge(self, number: int, at: float | None = None) -> None:
        """Record that a message was acknowledged."""
        message = self.messages[number - 1]
        if message.acknowledged is None:
            message.acknowledged = _now(at)
            self._look(message)

    def refuse(self, number: int, at: float | None = None) -> None:
        """Record that the device got an error for a message, perhaps besides other answers."""
        message = self.messages[number - 1]
        message.refused = _now(at)
        self._look(message)

    def give_up(self, number: int, at: float | None = None) -> None:
        """Record that the device has stopped waiting for an answer on a connection that was still open."""
        self.messages[number - 1].gave_up = _now(at)

    def answer(
        self, number: int, token: str = "", claimed: int | None = None, at: float | None = None
    ) -> None:
        """Record an answer to a message, which says that it belongs to message `claimed` of `token`."""
        answer = Answer(_now(at), token or self.token, number if claimed is None else claimed)
        if not 1 <= number <= len(self.messages):
            self.strays.append(answer)
            return
        self.messages[number - 1].answers += (answer,)

    def deliver(
        self, number: int, connection: int | None = None, replica: int = 0, at: float | None = None
    ) -> None:
        """Record that a handler got a message."""
        message = self.messages[number - 1]
        message.deliveries += (
            Delivery(_now(at), message.connection if connection is None else connection, replica),
        )
        self._look(message)

    def push(self, sent: float, at: float | None = None) -> None:
        """Record that the device got a push that was sent at a time."""
        self.pushes.append(Push(sent, _now(at), self.connection))

    def revoke(self, at: float | None = None) -> None:
        """Record that the registration of the device was ended while it was connected."""
        self.revocations.append(Revocation(_now(at), self.connection))

    def missing(self) -> list[int]:
        """Return the messages that are acknowledged and not delivered, and not written off."""
        return sorted(self._missing)

    def write_off(self) -> None:
        """Wait no longer for messages that are missing now. They stay in the history."""
        self._missing.clear()

    def _look(self, message: Message) -> None:
        if message.is_missing:
            self._missing.add(message.number)
        else:
            self._missing.discard(message.number)


def _now(at: float | None) -> float:
    return time.monotonic() if at is None else at
