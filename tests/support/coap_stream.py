"""A CoAP server for TCP or WebSocket in the test's own process, beside that for UDP; and a bare client on the codec."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from kaa_gateway.coap.stream_server import CoapStreamServer
from kaa_gateway.net.tcp_listener import TcpListener
from kaa_gateway.net.transport import ProtocolServer
from kaa_gateway.net.websocket import WebSocketServer
from kaa_gateway.wire.coap import Message
from kaa_gateway.wire.coap_stream import decode_stream, encode_stream

from tests.support.coap import (
    ANSWER_TIMEOUT_S,
    CHECK_PERIOD_S,
    POST,
    QUIET_S,
    URI_PATH,
    RunningCoapServer,
    coap_server,
)
from tests.support.esp import until
from tests.support.nats import HOST

STREAM = 4
CSM, PING, PONG, RELEASE, ABORT = 0xE1, 0xE2, 0xE3, 0xE4, 0xE5

STREAM_SETTINGS: dict[str, Any] = {
    "authenticate": None,
    "alternative_address": None,
    "csm_timeout": 10.0,
    "ping_after": 300.0,
    "response_timeout": 10.0,
    "pending_requests": 1000,
    "max_body_size": 256 * 1024,
    "block_memory": 1024 * 1024,
    "transfers_per_peer": 4,
    "outstanding_per_peer": 64,
    "observers": 1000,
    "observers_per_peer": 16,
    "max_wait": 240.0,
    "requests_per_second": 0.0,
}


class RunningStreamServer:
    """The server for streams, its listener, and the server for UDP that brings uplink and sessions."""

    def __init__(self, server: RunningCoapServer, settings: dict[str, Any], websocket: bool) -> None:
        self.server = server
        self._checks = 0
        loop: Any = server.clock
        self.core = CoapStreamServer(
            loop,
            server.uplink,
            server.sessions,
            server.counters,
            server.app_versions,
            **(STREAM_SETTINGS | settings),
        )
        protocol: ProtocolServer = self.core
        if websocket:
            protocol = WebSocketServer(
                loop,
                protocol,
                server.counters,
                paths=["/.well-known/coap"],
                subprotocols=(b"coap",),
                keeps_messages=True,
                frame_size_max=1024 * 1024,
                handshake_timeout=10.0,
            )
        self.listener = TcpListener(
            loop, protocol, server.counters, protocol="coap", output_max=8 * 1024 * 1024, connections_max=1000
        )
        self.listener.start(HOST, 0, reuse_port=False)

    @property
    def port(self) -> int:
        return self.listener.port

    @property
    def tables(self) -> dict[str, int]:
        """The sizes of the server's tables."""
        return self.core.table_sizes()

    def count(self, event: str, reason: str) -> int:
        """Return how often something has happened for this reason."""
        return self.server.count(event, reason)

    async def checked(self) -> None:
        """Wait until all connections have been checked."""
        before = self._checks
        await until(lambda: self._checks > before + 1, "a check")

    async def check_for_ever(self) -> None:
        while True:
            await asyncio.sleep(CHECK_PERIOD_S)
            self._checks += 1
            self.core.pending.expire(self.server.clock.time())
            self.listener.check()
            self.core.check()


@asynccontextmanager
async def coap_stream_server(
    url: str, *, websocket: bool = False, **settings: Any
) -> AsyncIterator[RunningStreamServer]:
    """Yield a server whose `settings` differ from STREAM_SETTINGS, with its link up."""
    async with coap_server(url) as server:
        running = RunningStreamServer(server, settings, websocket)
        timer = asyncio.create_task(running.check_for_ever())
        try:
            yield running
        finally:
            timer.cancel()
            [failure] = await asyncio.gather(timer, return_exceptions=True)
            await running.listener.stop(1.0)
            assert isinstance(failure, asyncio.CancelledError), failure
            assert running.tables["peers"] == 0


class StreamClient:
    """A client over TCP that sends single messages. `inbox` holds what has come and was not taken."""

    _tokens = itertools.count(1)

    def __init__(self, port: int, csm: bool = True) -> None:
        self.inbox: list[Message] = []
        self.closed = False
        self._port = port
        self._csm = csm

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(HOST, self._port)
        self._task = asyncio.create_task(self._read())
        assert (await self.receive()).code == CSM
        if self._csm:
            self.send(Message(STREAM, CSM, 0))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()

    async def _read(self) -> None:
        rest = b""
        try:
            while data := await self._reader.read(65_536):
                messages, rest = decode_stream(rest + data)
                self.inbox += messages
        except ConnectionError:
            pass
        self.closed = True

    def request(
        self,
        path: str,
        payload: bytes = b"",
        *options: tuple[int, bytes],
        method: int = POST,
        token: bytes | None = None,
    ) -> Message:
        """Return a request that was not sent yet, with a fresh token unless given."""
        if token is None:
            token = next(self._tokens).to_bytes(4, "big")
        segments = [(URI_PATH, segment.encode()) for segment in path.split("/")]
        ordered = sorted([*segments, *options], key=lambda option: option[0])
        return Message(STREAM, method, 0, token, tuple(ordered), payload)

    def send(self, message: Message | bytes) -> None:
        self._writer.write(message if isinstance(message, bytes) else encode_stream(message))

    def end_of_output(self) -> None:
        self._writer.write_eof()

    async def receive(self, wanted: Callable[[Message], bool] = lambda message: True) -> Message:
        """Return the next message that is wanted, taken out of the inbox."""
        await until(lambda: any(map(wanted, self.inbox)), "a message", ANSWER_TIMEOUT_S)
        message = next(filter(wanted, self.inbox))
        self.inbox.remove(message)
        return message

    async def ask(self, message: Message) -> Message:
        """Send a request and return its response."""
        self.send(message)
        return await self.receive(lambda answer: answer.token == message.token)

    async def post(
        self, path: str, payload: bytes = b"", *options: tuple[int, bytes], **changes: Any
    ) -> Message:
        """Send a request and return its response."""
        return await self.ask(self.request(path, payload, *options, **changes))

    async def is_closed(self) -> None:
        """Wait until the server has closed the connection."""
        await until(lambda: self.closed, "the end of the connection", ANSWER_TIMEOUT_S)

    async def hears_nothing(self) -> bool:
        """Return whether nothing comes for a moment."""
        await asyncio.sleep(QUIET_S)
        return not self.inbox
