"""The KP/UDP server in the test's own process, on a real NATS, with small bounds and visible tables.

A gateway as a process of its own is in tests/support/gateway.py.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from kaa_bench.peers.kpudp_client import KpudpClient
from kaa_gateway.bus import subjects
from kaa_gateway.bus.connector import Connector, TlsOptions
from kaa_gateway.bus.link import Link
from kaa_gateway.counters import Counters
from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.provider import Identity
from kaa_gateway.kp.correlation import Correlator
from kaa_gateway.kp.downlink import Downlink
from kaa_gateway.kp.pending import PendingRequests
from kaa_gateway.kp.router import Router
from kaa_gateway.kp.sessions import Sessions
from kaa_gateway.kp.uplink import Uplink
from kaa_gateway.kpudp.server import KpudpServer
from kaa_gateway.net.udp import UdpSocket
from kaa_gateway.slices import Slices

from tests.support.esp import until
from tests.support.gateway import EXTENSIONS, INSTANCE, REPLICA
from tests.support.nats import HOST

CHECK_PERIOD_S = 0.05
RECEIVE_TIMEOUT_S = 10.0
ACK_TIMEOUT_S = 0.2

SETTINGS: dict[str, Any] = {
    "peers": 1000,
    "peer_timeout": 300.0,
    "ack_timeout": ACK_TIMEOUT_S,
    "unacknowledged": 10_000,
}


class Presence:
    """Keeps the set of reachable endpoints."""

    def __init__(self) -> None:
        self.present: set[str] = set()

    def appeared(self, endpoint_id: str, app_version: str) -> None:
        self.present.add(endpoint_id)

    def disappeared(self, endpoint_id: str, app_version: str) -> None:
        self.present.discard(endpoint_id)


class KpudpGateway:
    """A gateway with KP/UDP only. Tokens are endpoint IDs, except that `refused...` is 401."""

    def __init__(
        self, nats_url: str, *, max_pending_bytes: int = 1 << 26, pending: int = 1000,
        response_timeout: float = 30.0, **settings: Any,
    ) -> None:  # fmt: skip
        loop = asyncio.get_running_loop()
        replies = (
            subjects.replica(REPLICA, "esp", subjects.EXTENSION_DATA),
            subjects.service(INSTANCE, "esp", subjects.EXTENSION_DATA),
        )
        self.link = Link(loop, replies, max_pending_bytes, 10.0, self._on_lost)
        self.connector = Connector(
            self.link, (nats_url,), name="test", tls=TlsOptions(None, None, None), credentials=None
        )
        self.counters = Counters()
        self.presence = Presence()
        self.sessions = Sessions(
            self.counters, Slices(loop), self.presence, 100, idle_timeout=0, watched_max=1
        )
        names = frozenset(EXTENSIONS)
        aware = {name: bool(keys["endpoint-aware"]) for name, keys in EXTENSIONS.items()}
        router = Router(self.sessions, {"app_v1": names}, aware, {}, (), REPLICA, 1000, 1024)
        correlator = Correlator(int.from_bytes(os.urandom(3)), 0)
        uplink = Uplink(
            self.link, router, self.sessions, correlator, self.counters, self._resolve, 100, 1 << 18
        )
        self.link.set_listener(Downlink(uplink, router, self.sessions, correlator, self.counters))
        self.pending = PendingRequests(pending, response_timeout)
        self.transport = KpudpServer(
            loop, uplink, self.sessions, self.pending, self.counters, **{**SETTINGS, **settings}
        )
        self.socket = self._make_socket()

    def _make_socket(self) -> UdpSocket:
        return UdpSocket(asyncio.get_running_loop(), self.transport, self.counters)

    def _on_lost(self, sentence: str) -> None:
        self.connector.on_lost(sentence)

    def _resolve(self, app_version: str, token: str) -> asyncio.Future[Identity]:
        future = asyncio.get_running_loop().create_future()
        if token.startswith("refused"):
            future.set_exception(IdentityError(401, "token_rejected"))
        else:
            future.set_result(Identity(token))
        return future

    @property
    def port(self) -> int:
        port: int = self.socket.port
        return port

    def count(self, event: str, reason: str) -> int:
        """Return how often an event was counted, such as ("dropped", "kpudp_duplicate")."""
        return self.counters.by_reason().get((event, reason), 0)


Started = TypeVar("Started", bound=KpudpGateway)


@asynccontextmanager
async def kpudp_gateway(nats_url: str, **settings: Any) -> AsyncIterator[KpudpGateway]:
    """Run a KP/UDP server; `settings` are those of KpudpGateway and KpudpServer."""
    async with running(KpudpGateway(nats_url, **settings)) as gateway:
        yield gateway


@asynccontextmanager
async def running(gateway: Started) -> AsyncIterator[Started]:
    """Run a KP/UDP server."""
    gateway.connector.start()
    await until(lambda: gateway.link.ready, "the link to NATS")
    gateway.socket.start(HOST, 0, reuse_port=False)

    async def check() -> None:
        while True:
            await asyncio.sleep(CHECK_PERIOD_S)
            gateway.socket.check()

    checks = asyncio.create_task(check())
    try:
        yield gateway
    finally:
        assert not checks.done(), checks.exception()
        checks.cancel()
        gateway.socket.stop()
        await gateway.connector.stop()


def client(port: int) -> KpudpClient:
    """Return a device that does not wait long before it sends again."""
    return KpudpClient(port, ack_timeout=ACK_TIMEOUT_S)


class RawDevice:
    """A device that sends datagrams as given and answers nothing by itself. It counts bytes `sent` and `received`."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((HOST, 0))
        self._socket.connect((HOST, port))
        self.sent = 0
        self.received = 0

    def send(self, datagram: bytes) -> None:
        self.sent += self._socket.send(datagram)

    async def receive(self, timeout: float = RECEIVE_TIMEOUT_S) -> bytes:
        """Return the next datagram. Raises TimeoutError if there is none."""
        datagram = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._socket, 65536), timeout)
        self.received += len(datagram)
        return datagram

    def drain(self) -> list[bytes]:
        """Return the datagrams that have arrived."""
        datagrams = []
        while True:
            try:
                datagrams.append(self._socket.recv(65536))
            except BlockingIOError:
                return datagrams
            self.received += len(datagrams[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
