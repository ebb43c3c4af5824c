"""Publishes to JetStream and sends it requests, many at a time; the answers arrive on one inbox.

An answer is found by its token, the last part of the inbox. Nothing here waits for one acknowledgement before it sends
the next message. Rare requests, such as those that make a bucket, go through nats-py.

Source: NATS documentation, "JetStream wire API reference", publishing with acknowledgement.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec
from kaa_gateway.bus.codes import NO_RESPONDERS
from nats.aio.msg import Msg

from kaa_ext.sdk.errors import Conflict, NotDelivered, StateUnavailable

OUTSTANDING_MAX = 8192
"""Requests and publications of an extension without answer; further ones wait."""
TIMEOUT_S = 5.0
"""How long an answer may take."""
SWEEP_S = 0.5
"""The pause between looks for requests whose time is over."""
WRONG_LAST_SEQUENCE = (10071, 10164)
"""JetStream's error codes for a subject whose last message is another than the publication expects."""


class Publication(NamedTuple):
    """A message for a stream."""

    subject: str
    payload: bytes
    headers: Mapping[str, str] | None = None


class ApiError(msgspec.Struct):
    """An error of JetStream."""

    err_code: int = 0
    description: str = ""


class PubAck(msgspec.Struct):
    """The answer to a publication."""

    seq: int = 0
    error: ApiError | None = None


class Publish(Protocol):
    """Sends a message; raises NotDelivered."""

    def __call__(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> Awaitable[None]:
        """Send a message."""


class _Batch:
    """Requests that one caller waits for. Each answer is the bytes of JetStream, or an error."""

    __slots__ = ("answers", "done", "missing")

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.answers: list[bytes | StateUnavailable] = [b""] * size
        self.missing = size
        self.done: asyncio.Future[None] = loop.create_future()

    def receive(self, index: int, answer: bytes | StateUnavailable) -> None:
        self.answers[index] = answer
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)


class Publisher:
    """The JetStream requests of one extension replica."""

    def __init__(
        self,
        replica_id: str,
        publish: Publish,
        *,
        outstanding_max: int = OUTSTANDING_MAX,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.inbox = f"_INBOX.{replica_id}."
        self._publish = publish
        self._outstanding_max = outstanding_max
        self._timeout_s = timeout_s
        self._waiting: dict[str, tuple[_Batch, int, float]] = {}
        """By token, with the time at which it is over; the oldest first."""
        self._tokens = 0
        self._room: asyncio.Future[None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._decode_ack = msgspec.json.Decoder(PubAck).decode

    @property
    def outstanding(self) -> int:
        """Return the number of requests and publications without answer."""
        return len(self._waiting)

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> int:
        """Publish a message to a stream. Return its sequence when it is stored.

        Raise Conflict if the headers expect another last message, StateUnavailable if it may not be stored.
        """
        (answer,) = await self.publish_all([Publication(subject, payload, headers)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def publish_all(
        self, publications: Sequence[Publication]
    ) -> list[int | StateUnavailable | Conflict]:
        """Publish messages to streams, in order. Return for each its sequence when it is stored, or its error."""
        return [
            self._sequence(answer) if isinstance(answer, bytes) else answer
            for answer in await self._send(publications)
        ]

    async def request(self, subject: str, payload: bytes = b"") -> bytes:
        """Send a request of the JetStream API. Return the answer. Raise StateUnavailable if there is none."""
        (answer,) = await self._send([Publication(subject, payload)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def tell(self, subject: str) -> None:
        """Send a request whose answer is of no interest. Raise NotDelivered if NATS does not take it."""
        await self._publish(subject, b"")

    def receive(self, message: Msg) -> None:
        """Handle a message on the inbox."""
        found = self._waiting.pop(message.subject[len(self.inbox) :], None)
        if found is None:
            return  # its time was over
        batch, index, _ = found
        answer: bytes | StateUnavailable = message.data
        if not answer and message.headers and message.headers.get("Status") == NO_RESPONDERS:
            answer = StateUnavailable("JetStream has no stream for this subject")
        batch.receive(index, answer)
        if self._room is not None:
            self._make_room()

    async def _send(self, publications: Sequence[Publication]) -> list[bytes | StateUnavailable]:
        loop = asyncio.get_running_loop()
        batch = _Batch(len(publications), loop)
        if not publications:
            return batch.answers
        ends = loop.time() + self._timeout_s
        waiting, inbox, publish = self._waiting, self.inbox, self._publish
        tokens = []
        try:
            for index, (subject, payload, headers) in enumerate(publications):
                while len(waiting) >= self._outstanding_max:
                    await self._wait_for_room(loop)
                    ends = loop.time() + self._timeout_s
                self._tokens += 1
                token = str(self._tokens)
                tokens.append(token)
                waiting[token] = batch, index, ends
                try:
                    await publish(subject, payload, inbox + token, headers)
                except NotDelivered as error:
                    if waiting.pop(token, None) is not None:
                        batch.receive(index, StateUnavailable(str(error)))
            if self._sweeper is None:
                self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop)
            await batch.done
        finally:
            if batch.missing:
                for token in tokens:
                    waiting.pop(token, None)
                self._make_room()
        return batch.answers

    def _sequence(self, answer: bytes) -> int | StateUnavailable | Conflict:
        try:
            ack = self._decode_ack(answer)
        except msgspec.MsgspecError:
            return StateUnavailable("JetStream's answer is not an acknowledgement")
        if ack.error is not None:
            if ack.error.err_code in WRONG_LAST_SEQUENCE:
                return Conflict()
            return StateUnavailable(ack.error.description)
        return ack.seq

    async def _wait_for_room(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop)
        if self._room is None:
            self._room = loop.create_future()
        await asyncio.shield(self._room)

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set_result(None)
            self._room = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the requests whose time is over."""
        now = loop.time()
        while self._waiting:
            token, (batch, index, ends) = next(iter(self._waiting.items()))
            if ends > now:
                break
            del self._waiting[token]
            batch.receive(index, StateUnavailable("JetStream did not answer in time"))
            self._make_room()
        self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop) if self._waiting else None
