"""A device of KP over UDP on asyncio: for the bench, for tests, and as an example beside the specification.

It does everything that docs/kp-over-udp.md requires of a device. It makes objects for each message, so the load
generator does not use it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from kaa_gateway.wire.kpudp import Message, ProtocolError, Reason, Type, decode, encode

from kaa_bench.errors import BenchError

TRANSMISSIONS = 6
RESPONSE_TIMEOUT_S = 60.0
JITTER = 0.5
ALIAS_MAX = 16
REMEMBERED = 64
"""The number of the server's message IDs that a device remembers."""
PING_DATA_SIZE = 8


class RefusedError(BenchError):
    """The server has reset a message. `reason` is that of the RESET; 400 and above are HTTP status codes."""

    def __init__(self, reason: int) -> None:
        super().__init__(f"the server has reset the message with reason {reason}")
        self.reason = reason


class UnansweredError(BenchError):
    """The server did not answer within the time of all retransmissions."""


class Response(NamedTuple):
    """The answer to a request."""

    status: int
    reason_phrase: str
    payload: bytes


class Push(NamedTuple):
    """A push of the server."""

    path: str
    status: int
    payload: bytes


@dataclass
class _Sent:
    """A confirmable message of the device."""

    message: Message
    path: str | None
    done: asyncio.Future[Message]
    transmissions: int = 0
    taken: bool = False
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)


class KpudpClient(asyncio.DatagramProtocol):
    """A device. `pushes` has each push once; `resets` has the reasons of the received RESETs."""

    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        ack_timeout: float = 2.0,
        source: tuple[str, int] | None = None,
    ) -> None:
        self._source = source
        self.epoch = random.getrandbits(8)
        self.pushes: asyncio.Queue[Push] = asyncio.Queue()
        self.resets: list[int] = []
        self.retransmissions = 0
        self.duplicates = 0
        self._server = (host, port)
        self._ack_timeout = ack_timeout
        self._message_id = random.getrandbits(16)
        self._outstanding: dict[int, _Sent] = {}
        self._aliases: dict[str, int] = {}
        self._registered: set[str] = set()
        self._seen: deque[int] = deque(maxlen=REMEMBERED)
        self._challenge = b""
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        await self.rebind()
        return self

    async def __aexit__(self, *_: object) -> None:
        for sent in self._outstanding.values():
            if sent.timer is not None:
                sent.timer.cancel()
            sent.done.cancel()
        if self._transport is not None:
            self._transport.close()

    async def rebind(self) -> None:
        """Continue from another port, as after a NAT has forgotten its binding."""
        loop = asyncio.get_running_loop()
        former = self._transport
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, remote_addr=self._server, local_addr=self._source
        )
        if former is not None:
            former.close()

    # ------------------------------------------------------------ to the server

    def data(self, path: str, *payloads: bytes) -> None:
        """Send DATA messages in one datagram. They are not acknowledged."""
        messages = [self._compose(Type.DATA, path, payload) for payload in payloads]
        self._send(*messages)

    async def confirmed(self, path: str, payload: bytes = b"") -> None:
        """Send CONFIRMED DATA. Return when NATS has it. Raise RefusedError or UnansweredError."""
        await self._exchange(self._compose(Type.CONFIRMED_DATA, path, payload), path)

    async def request(self, path: str, payload: bytes = b"") -> Response:
        """Send REQUEST and return the response. Raise RefusedError or UnansweredError."""
        answer = await self._exchange(self._compose(Type.REQUEST, path, payload), path)
        return Response(answer.status, answer.reason_phrase, answer.payload)

    async def ping(self, path: str | None = None) -> None:
        """Send PING, with a path as an announcement, and wait for PONG. Raise RefusedError or UnansweredError."""
        data = random.randbytes(PING_DATA_SIZE)
        await self._exchange(Message(Type.PING, self._next_id(), path=path, payload=data), None)

    def _next_id(self) -> int:
        self._message_id = (self._message_id + 1) & 0xFFFF
        return self._message_id

    def _compose(self, kind: Type, path: str, payload: bytes) -> Message:
        if path not in self._aliases and len(self._aliases) < ALIAS_MAX:
            self._aliases[path] = len(self._aliases) + 1
        message = Message(kind, self._next_id(), payload=payload)
        return self._addressed(message, path)

    def _addressed(self, message: Message, path: str) -> Message:
        """Return the message with the alias only, if the server has acknowledged that."""
        return message._replace(
            alias=self._aliases.get(path, 0), path=None if path in self._registered else path
        )

    async def _exchange(self, message: Message, path: str | None) -> Message:
        sent = _Sent(message, path, asyncio.get_running_loop().create_future())
        self._outstanding[message.message_id] = sent
        wait = self._ack_timeout * (1 + JITTER * random.random())
        self._transmit(sent, wait)
        try:
            return await sent.done
        finally:
            self._outstanding.pop(message.message_id, None)
            if sent.timer is not None:
                sent.timer.cancel()

    def _transmit(self, sent: _Sent, wait: float) -> None:
        loop = asyncio.get_running_loop()
        if sent.taken or sent.transmissions >= TRANSMISSIONS:
            if not sent.done.done():
                sent.done.set_exception(UnansweredError(f"{sent.message.type.name} was not answered"))
            return
        self.retransmissions += sent.transmissions > 0
        sent.transmissions += 1
        self._send(sent.message)
        sent.timer = loop.call_later(wait, self._transmit, sent, 2 * wait)

    def _send(self, *messages: Message) -> None:
        assert self._transport is not None
        self._transport.sendto(encode(self.epoch, messages))

    # ------------------------------------------------------------ from the server

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Handle each frame of a datagram. Ignore a datagram that is not KP/UDP of this session."""
        try:
            epoch, messages = decode(data)
        except ProtocolError:
            return
        if epoch == self.epoch:
            for message in messages:
                self._receive(message)

    def _receive(self, message: Message) -> None:
        sent = self._outstanding.get(message.message_id)
        if message.type in (Type.RESPONSE, Type.PUSH):
            self._send(Message(Type.ACK, message.message_id))
            if message.message_id in self._seen:
                self.duplicates += 1
                return
            self._seen.append(message.message_id)
            if message.type == Type.RESPONSE:
                self._conclude(self._outstanding.get(message.request_id), message)
            else:
                assert message.path is not None
                self.pushes.put_nowait(Push(message.path, message.status, message.payload))
        elif message.type == Type.PING:
            if message.payload != self._challenge:
                self._challenge = message.payload
                self._seen.clear()
            self._send(Message(Type.PONG, message.message_id, payload=message.payload))
        elif message.type == Type.RESET:
            self._reset(sent, message.status)
        elif sent is not None:
            if message.type == Type.ACK and sent.message.type == Type.REQUEST:
                self._taken(sent)
            else:
                self._conclude(sent, message)

    def _taken(self, sent: _Sent) -> None:
        """Stop sending a request again, because NATS has it."""
        self._register(sent)
        if not sent.taken:
            sent.taken = True
            assert sent.timer is not None
            sent.timer.cancel()
            sent.timer = asyncio.get_running_loop().call_later(RESPONSE_TIMEOUT_S, self._transmit, sent, 0.0)

    def _reset(self, sent: _Sent | None, reason: int) -> None:
        self.resets.append(reason)
        if reason == Reason.UNKNOWN_ALIAS:
            self._registered.clear()
            if sent is not None and sent.path is not None:
                sent.message = self._addressed(sent.message, sent.path)
                self._send(sent.message)
        elif sent is not None and not sent.done.done():
            sent.done.set_exception(RefusedError(reason))

    def _conclude(self, sent: _Sent | None, answer: Message) -> None:
        if sent is not None and not sent.done.done():
            self._register(sent)
            sent.done.set_result(answer)

    def _register(self, sent: _Sent) -> None:
        if sent.path is not None and sent.message.path is not None and sent.message.alias:
            self._registered.add(sent.path)
