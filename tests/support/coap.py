"""A CoAP server of ours in the test's own process, on a real NATS server; and a bare CoAP client on the codec.

The clock of the server can be put forward. Clients that owe nothing to our codec are aiocoap and libcoap's, used by
the tests themselves.
"""

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from kaa_gateway.bus import subjects
from kaa_gateway.bus.connector import Connector, TlsOptions
from kaa_gateway.bus.link import Link
from kaa_gateway.coap.server import CoapServer
from kaa_gateway.counters import Counters
from kaa_gateway.identity.open import OpenProvider
from kaa_gateway.identity.resolver import Resolver
from kaa_gateway.kp.correlation import Correlator
from kaa_gateway.kp.downlink import Downlink
from kaa_gateway.kp.router import Router
from kaa_gateway.kp.sessions import Sessions
from kaa_gateway.kp.uplink import Uplink
from kaa_gateway.net.udp import UdpSocket
from kaa_gateway.slices import Slices
from kaa_gateway.wire.coap import Message, decode, encode

from tests.support.esp import until
from tests.support.gateway import EXTENSIONS, INSTANCE, REPLICA
from tests.support.nats import HOST

CON, NON, ACK, RST = range(4)
GET, POST, PUT, FETCH = 1, 2, 3, 5
OBSERVE, LOCATION_PATH, URI_PATH, MAX_AGE, URI_QUERY = 6, 8, 11, 14, 15
BLOCK2, BLOCK1, ECHO, NO_RESPONSE = 23, 27, 252, 258
ANSWER_TIMEOUT_S = 10.0
QUIET_S = 0.15
CHECK_PERIOD_S = 0.02
APP_VERSION = "app_v1"

SETTINGS: dict[str, Any] = {
    "piggyback_delay": 0.1,
    "response_timeout": 10.0,
    "ack_timeout": 2.0,
    "pending_requests": 1000,
    "max_body_size": 256 * 1024,
    "block_memory": 1024 * 1024,
    "transfers_per_peer": 4,
    "peers": 1000,
    "exchanges": 10_000,
    "exchanges_per_peer": 256,
    "outstanding_per_peer": 64,
    "observers": 1000,
    "observers_per_peer": 16,
    "max_wait": 20.0,
    "requests_per_second": 0.0,
    "require_echo": False,
}


class ShiftedLoop:
    """The event loop, with a clock that can be put forward by `shift` seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.shift = 0.0
        self._loop = loop

    def time(self) -> float:
        return self._loop.time() + self.shift

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Presence:
    """The endpoints that connectivity events would tell of."""

    def __init__(self) -> None:
        self.present: set[str] = set()

    def appeared(self, endpoint_id: str, app_version: str) -> None:
        self.present.add(endpoint_id)

    def disappeared(self, endpoint_id: str, app_version: str) -> None:
        self.present.discard(endpoint_id)


class RunningCoapServer:
    """The server and its tables. Made by `coap_server`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        url: str,
        settings: dict[str, Any],
        idle_timeout: float,
        watched_max: int,
    ) -> None:
        self.clock = ShiftedLoop(loop)
        self.counters = Counters()
        self.presence = Presence()
        self.link = Link(
            loop,
            (
                subjects.replica(REPLICA, "esp", subjects.EXTENSION_DATA),
                subjects.service(INSTANCE, "esp", subjects.EXTENSION_DATA),
            ),
            8 * 1024 * 1024,
            10.0,
            self._on_link_lost,
        )
        self.connector = Connector(self.link, (url,), name="test", tls=TlsOptions(), credentials=None)
        self.resolver = Resolver(OpenProvider(), 5.0)
        self.sessions = sessions = Sessions(
            self.counters, Slices(loop), self.presence, 16, idle_timeout=idle_timeout, watched_max=watched_max
        )
        endpoint_aware = {name: instance["endpoint-aware"] for name, instance in EXTENSIONS.items()}
        self.app_versions = app_versions = {
            APP_VERSION: frozenset(EXTENSIONS),
            "app_v2": frozenset({"echo"}),
        }
        router = Router(sessions, app_versions, endpoint_aware, {}, (), REPLICA, 1000, 512)
        correlator = Correlator(1, 0)
        self.uplink = uplink = Uplink(
            self.link, router, sessions, correlator, self.counters, self.resolver.resolve, 100, 1024 * 1024
        )
        self.link.set_listener(Downlink(uplink, router, sessions, correlator, self.counters))
        self.core = CoapServer(
            uplink, sessions, self.counters, app_versions, now=loop.time(), **(SETTINGS | settings)
        )
        self.socket = UdpSocket(self.clock, self.core, self.counters)  # type: ignore[arg-type]

    def _on_link_lost(self, sentence: str) -> None:
        self.connector.on_lost(sentence)

    @property
    def port(self) -> int:
        return self.socket.port

    @property
    def uri(self) -> str:
        return f"coap://{HOST}:{self.port}"

    @property
    def tables(self) -> dict[str, int]:
        """The sizes of the server's tables."""
        return self.core.table_sizes()

    def count(self, event: str, reason: str) -> int:
        """Return how often something has happened for this reason."""
        return self.counters.by_reason().get((event, reason), 0)

    async def put_forward(self, seconds: float) -> None:
        """Let time pass for the server."""
        self.clock.shift += seconds
        await asyncio.sleep(2 * CHECK_PERIOD_S)

    async def check_for_ever(self) -> None:
        while True:
            await asyncio.sleep(CHECK_PERIOD_S)
            self.socket.check()


@asynccontextmanager
async def coap_server(
    url: str, *, idle_timeout: float = 0, watched_max: int = 1, **settings: Any
) -> AsyncIterator[RunningCoapServer]:
    """Yield a server whose `settings` differ from SETTINGS, with its link up.

    An endpoint is present while it is observed, and with an `idle_timeout` as long after each of its messages, as the
    test's calls of `sessions.presence.look_for_idle` have it.
    """
    server = RunningCoapServer(asyncio.get_running_loop(), url, settings, idle_timeout, watched_max)
    server.connector.start()
    await until(lambda: bool(server.link.ready), "the link")
    server.socket.start(HOST, 0, reuse_port=False)
    timer = asyncio.create_task(server.check_for_ever())
    try:
        yield server
    finally:
        timer.cancel()
        [failure] = await asyncio.gather(timer, return_exceptions=True)
        server.socket.stop()
        await server.connector.stop()
        await server.resolver.stop()
        assert isinstance(failure, asyncio.CancelledError), failure


def uint(value: int) -> bytes:
    """Return an option value of format uint."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def block(number: int, more: bool, szx: int) -> bytes:
    """Return the value of a block option."""
    return uint(number << 4 | more << 3 | szx)


class CoapClient:
    """A client that sends single messages and retransmits nothing.

    `inbox` holds what has come and was not taken.
    """

    _tokens = itertools.count(1)

    def __init__(self, port: int) -> None:
        self.inbox: list[Message] = []
        self.bytes_sent = 0
        self.bytes_received = 0
        self._message_id = int.from_bytes(os.urandom(2), "big")
        self._address = (HOST, port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind((HOST, 0))

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._on_readable)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def request(
        self,
        path: str,
        payload: bytes = b"",
        *options: tuple[int, bytes],
        method: int = POST,
        kind: int = CON,
        token: bytes | None = None,
    ) -> Message:
        """Return a request that was not sent yet, with a fresh message ID, and token unless given."""
        self._message_id = (self._message_id + 1) & 0xFFFF
        segments = [(URI_PATH, segment.encode()) for segment in path.split("/")]
        if token is None:
            token = next(self._tokens).to_bytes(4, "big")
        ordered = sorted([*segments, *options], key=lambda option: option[0])
        return Message(kind, method, self._message_id, token, tuple(ordered), payload)

    def send(self, message: Message | bytes) -> None:
        datagram = message if isinstance(message, bytes) else encode(message)
        self.bytes_sent += len(datagram)
        self._socket.sendto(datagram, self._address)

    async def receive(self, wanted: Callable[[Message], bool] = lambda message: True) -> Message:
        """Return the next message that is wanted, taken out of the inbox."""
        await until(lambda: any(map(wanted, self.inbox)), "a message", ANSWER_TIMEOUT_S)
        message = next(filter(wanted, self.inbox))
        self.inbox.remove(message)
        return message

    async def ask(self, message: Message) -> Message:
        """Send a request, and return the first message in answer to it: its acknowledgement, or the response."""
        self.send(message)
        return await self.receive(
            lambda answer: answer.token == message.token or answer.message_id == message.message_id
        )

    async def post(
        self, path: str, payload: bytes = b"", *options: tuple[int, bytes], **changes: Any
    ) -> Message:
        """Send a request and return what comes first."""
        return await self.ask(self.request(path, payload, *options, **changes))

    def acknowledge(self, message: Message) -> None:
        self.send(Message(ACK, 0, message.message_id))

    async def hears_nothing(self) -> bool:
        """Return whether nothing comes for a moment."""
        await asyncio.sleep(QUIET_S)
        return not self.inbox

    def _on_readable(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(65536)
            except (BlockingIOError, ConnectionError):
                return
            self.bytes_received += len(datagram)
            self.inbox.append(decode(datagram))


def option(message: Message, number: int) -> bytes | None:
    """Return the value of the first option of this number."""
    return next((value for candidate, value in message.options if candidate == number), None)
