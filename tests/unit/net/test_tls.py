"""The TLS adapter's time limit and bound of handshakes, with a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kaa_gateway.app.encryption import stream_credentials
from kaa_gateway.config.keys import MqttTls
from kaa_gateway.counters import Counters
from kaa_gateway.net.handshakes import HandshakeLog
from kaa_gateway.net.tls import TlsListener
from kaa_gateway.net.transport import ProtocolCore, ProtocolServer, Transport

from tests.support.certificates import Authority
from tests.support.coap import ShiftedLoop
from tests.support.esp import until
from tests.support.nats import HOST

BEGINNING = b"\x16\x03\x01\x02\x00\x01"
"""Of a ClientHello that does not go on."""


class NoServer(ProtocolServer):
    """The server behind handshakes of which none ends."""

    def connect(self, transport: Transport) -> ProtocolCore:
        raise AssertionError("a handshake has ended")


class Listener:
    def __init__(self, directory: Path) -> None:
        self.clock = ShiftedLoop(asyncio.get_running_loop())
        self.counters = Counters()
        server = Authority(directory).issue("gateway")
        settings = MqttTls(enabled=True, cert_file=server.cert_file, key_file=server.key_file)
        credentials = stream_credentials(("mqtt", "tls"), settings)
        self.tls = TlsListener(
            self.clock,  # type: ignore[arg-type]
            NoServer(),
            self.counters,
            protocol="mqtt",
            output_max=1024,
            connections_max=100,
            credentials=credentials,
            handshake_timeout=10.0,
            handshakes_max=3,
        )
        self.clients: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def connect(self, data: bytes = BEGINNING) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection(HOST, self.tls.port)
        self.clients.append((reader, writer))
        writer.write(data)
        count = len(self.clients)
        await until(
            lambda: self.counters.by_protocol()["connections_opened"]["mqtt"] == count, "the connection"
        )
        return reader

    def reason(self, reason: str) -> int:
        return self.counters.by_reason().get(("closed", reason), 0)


@pytest.fixture
async def listener(tmp_path: Path) -> AsyncIterator[Listener]:
    listener = Listener(tmp_path)
    listener.tls.start(HOST, 0, reuse_port=False)
    yield listener
    await listener.tls.stop(5.0)
    assert listener.tls.connection_count() == 0
    assert listener.tls.handshake_count() == 0
    for _, writer in listener.clients:
        writer.close()


async def test_a_handshake_has_its_time_and_no_more(listener: Listener) -> None:
    early = await listener.connect()
    listener.clock.shift += 9
    late = await listener.connect()
    listener.tls.check()
    assert listener.tls.handshake_count() == 2
    listener.clock.shift += 5
    listener.tls.check()
    assert listener.tls.handshake_count() == 1
    assert await asyncio.wait_for(early.read(), 20) == b""
    listener.clock.shift += 5
    listener.tls.check()
    assert await asyncio.wait_for(late.read(), 20) == b""
    assert listener.reason("tls_handshake_timeout") == 2


async def test_the_oldest_makes_room(listener: Listener) -> None:
    readers = [await listener.connect() for _ in range(5)]
    assert listener.tls.handshake_count() == 3
    for reader in readers[:2]:
        assert await asyncio.wait_for(reader.read(), 20) == b""
    assert listener.reason("tls_handshakes_full") == 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x10", "tls_not_tls"),
        (b"GET / HTTP/1.1\r\n\r\n", "tls_not_tls"),
        (b"\x16\x00\x01\x02\x00\x01\x00", "tls_version"),
        (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff" + bytes(100), "tls_handshake_failed"),
    ],
)
async def test_nonsense_fails_at_once(listener: Listener, data: bytes, reason: str) -> None:
    reader = await listener.connect(data)
    await asyncio.wait_for(reader.read(), 20)
    assert listener.reason(reason) == 1
    assert listener.tls.handshake_count() == 0


def test_a_flood_of_failures_does_not_fill_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    failures = HandshakeLog("mqtt")
    for _ in range(500):
        failures.failed("tls_unknown_ca", "self-signed certificate", "192.0.2.1:1", 0.0)
    failures.failed("tls_unknown_ca", "self-signed certificate", "192.0.2.1:1", 11.0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 22
    assert "count=480" in lines[20]
