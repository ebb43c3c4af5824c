"""The server of encrypted KP/UDP in the test's own process, and devices for it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from kaa_bench.peers import kpudp_sealing as sealing
from kaa_bench.peers.kpudp_sealing import Saved, Sealing
from kaa_bench.peers.secure_kpudp_client import SecureKpudpClient
from kaa_gateway.kpudp.secure_socket import SecureSocket
from kaa_gateway.net.udp import UdpSocket
from kaa_gateway.wire.kpudp import Message, Type, decode, encode

from tests.support.kpudp import ACK_TIMEOUT_S, KpudpGateway, RawDevice, running

IDENTITY = b"device-1"
KEY = bytes(range(32))
OTHER_IDENTITY = b"device-2"
OTHER_KEY = bytes(range(100, 132))


class Keys:
    """The keys by identity, as the gateway has them from its file."""

    def __init__(self) -> None:
        self.context: Mapping[bytes, bytes] = {IDENTITY: KEY, OTHER_IDENTITY: OTHER_KEY}


class SecureKpudpGateway(KpudpGateway):
    """A gateway with encrypted KP/UDP only."""

    def __init__(
        self, nats_url: str, *, sessions: int = 1000, session_timeout: float = 3600.0, worker: int = 0,
        **settings: Any,
    ) -> None:  # fmt: skip
        self.keys = Keys()
        self._sessions_max = sessions
        self._session_timeout = session_timeout
        self._worker = worker
        super().__init__(nats_url, **settings)

    def _make_socket(self) -> UdpSocket:
        self.secure = SecureSocket(
            asyncio.get_running_loop(), self.transport, self.counters, self.keys,  # type: ignore[arg-type]
            worker=self._worker, session_timeout=self._session_timeout, sessions_max=self._sessions_max,
        )  # fmt: skip
        return self.secure


@asynccontextmanager
async def secure_kpudp_gateway(nats_url: str, **settings: Any) -> AsyncIterator[SecureKpudpGateway]:
    """Run a server of encrypted KP/UDP; `settings` are those of SecureKpudpGateway and KpudpServer."""
    async with running(SecureKpudpGateway(nats_url, **settings)) as gateway:
        yield gateway


def secure_client(
    port: int, *, identity: bytes = IDENTITY, key: bytes = KEY, saved: Saved | None = None
) -> SecureKpudpClient:
    """Return a device that does not wait long before it sends again."""
    return SecureKpudpClient(port, identity, key, ack_timeout=ACK_TIMEOUT_S, saved=saved)


class RawSecureDevice(RawDevice):
    """A device that seals what it is told to, and answers nothing by itself."""

    session: Sealing

    async def challenge(self) -> sealing.Challenge:
        """Return the server's answer to HELLO. Other datagrams are thrown away."""
        client_random = secrets.token_bytes(sealing.RANDOM_SIZE)
        self.send(sealing.hello(client_random))
        while True:
            answer = sealing.read_challenge(await self.receive())
            if answer is not None and answer.client_random == client_random:
                return answer

    async def prepare(self, identity: bytes = IDENTITY, key: bytes = KEY) -> Sealing:
        """Return a session whose OPEN is still to be sent."""
        self.session = Sealing.open(await self.challenge(), identity, key)
        return self.session

    async def open(self, identity: bytes = IDENTITY, key: bytes = KEY) -> Sealing:
        """Return a session that the server has answered in."""
        await self.prepare(identity, key)
        self.send(self.session.seal(ping(1)))
        while True:
            datagram = await self.receive()
            if datagram[2:10] == self.session.connection_id:
                assert [each.type for each in self.read(datagram)] == [Type.PONG]
                return self.session

    def read(self, datagram: bytes) -> list[Message]:
        """Return the messages of a sealed datagram of the server."""
        plain = self.session.unseal(datagram)
        assert plain is not None
        return decode(b"\xb1\x00" + plain)[1]


def frames(*messages: Message) -> bytes:
    """Return what is sealed for these messages."""
    return encode(0, messages)[2:]


def ping(message_id: int) -> bytes:
    """Return the frame of a PING without path."""
    return frames(Message(Type.PING, message_id, payload=b"pingdata"))
