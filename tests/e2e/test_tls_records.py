"""Records of established TLS connections: those of one listener share their buffers, and nothing else.

What OpenSSL answers by itself goes to its own connection, also if it comes together with what makes another connection
write. OpenSSL refuses a new handshake of TLS 1.2 while it reads, so that record must be sent before the core has
another connection write. It answers a change of keys of TLS 1.3 with the next data that it writes to the connection.

Source: RFC 8446 section 4.6.3 (KeyUpdate); RFC 5246 section 7.4.1.1 (a new handshake); MQTT 3.1.4-3 (a client takes
over its older connection).
"""

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kaa_bench import mqtt_packets as mqtt

from tests.support.encrypted import EncryptedGateway, Pki
from tests.support.esp import until
from tests.support.nats import HOST, NatsServer
from tests.support.openssl_client import APPLICATION_DATA, TLS_1_2, OpensslClient

PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"
CONNACK, RESUMED = b"\x20\x02\x00\x00", b"\x20\x02\x01\x00"
PUBACK = b"\x40\x02\x00\x01"
PUBLISH = mqtt.encode(mqtt.Publish("of/nothing", bytes(3000), 1, 1))
NONSENSE = b"\x17\x03\x03\x00\x20" + bytes(range(32))
"""A record that no key has made."""
TIMEOUT_S = 60.0
ALERT, ALERT_SIZE = 21, 2
EXPLICIT_NONCE, TAG = 8, 16
AFTER_CLIENT_HELLO = 2
"""The number of a record: Finished and the ClientHello stand before it."""


@pytest.fixture(scope="module", params=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def encrypted(shared_nats: NatsServer, pki: Pki) -> Iterator[EncryptedGateway]:
    with EncryptedGateway(shared_nats.url, {"mqtt": {"tls": pki.section("off")}}) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log, gateway.log


class Client:
    """An MQTT client that hands over its records as the test wants."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pki: Pki, version: str
    ) -> None:
        context = ssl.create_default_context(cafile=pki.authority.file)
        context.minimum_version = context.maximum_version = (
            ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
        )
        self.reader, self.writer = reader, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def connect(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._exchange()
        self.writer.write(self.records(mqtt.encode(mqtt.Connect("client", clean_session=True))))
        assert await self.receive(len(CONNACK)) == CONNACK
        # Its answer comes from records that are read behind the handshake.
        await self.ping()

    async def ping(self) -> None:
        self.writer.write(self.records(PINGREQ))
        assert await self.receive(len(PINGRESP)) == PINGRESP

    def records(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._outgoing.read()

    async def receive(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            try:
                received += self._tls.read(65536)
            except ssl.SSLWantReadError:
                await self._exchange()
        return received

    async def _exchange(self) -> None:
        self.writer.write(self._outgoing.read())
        data = await asyncio.wait_for(self.reader.read(65536), 30)
        assert data, "the connection has ended"
        self._incoming.write(data)


@pytest.fixture
async def clients(encrypted: EncryptedGateway, pki: Pki, version: str) -> AsyncIterator[list[Client]]:
    made = []
    for _ in range(3):
        reader, writer = await asyncio.open_connection(HOST, encrypted.mqtts_port)
        made.append(Client(reader, writer, pki, version))
        await made[-1].connect()
    yield made
    for client in made:
        client.writer.close()


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 1500, -1])
async def test_a_record_may_stop_while_others_send(clients: list[Client], cut: int) -> None:
    halves = [client.records(PUBLISH) for client in clients]
    for client, records in zip(clients, halves, strict=True):
        client.writer.write(records[:cut])
        await client.writer.drain()
    for client, records in zip(clients, halves, strict=True):
        client.writer.write(records[cut:])
        assert await client.receive(len(PUBACK)) == PUBACK
    for client in clients:
        await client.ping()


async def test_many_records_in_one_segment(clients: list[Client]) -> None:
    for client in clients:
        client.writer.write(b"".join(client.records(PINGREQ) for _ in range(200)))
    for client in clients:
        assert await client.receive(200 * len(PINGRESP)) == 200 * PINGRESP


async def test_a_broken_connection_disturbs_no_other(
    encrypted: EncryptedGateway, clients: list[Client], pki: Pki, version: str
) -> None:
    before = encrypted.count("events", "closed", "tls_broken")
    broken, *others = clients
    # Behind the broken record stands one that is good, and is not read.
    broken.writer.write(NONSENSE + broken.records(PINGREQ))
    others[0].writer.write(others[0].records(PUBLISH)[:100])
    await until(
        lambda: encrypted.count("events", "closed", "tls_broken") == before + 1, "the end of the connection"
    )
    await others[1].ping()
    reader, writer = await asyncio.open_connection(HOST, encrypted.mqtts_port)
    await Client(reader, writer, pki, version).connect()
    writer.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_a_change_of_keys_is_answered(encrypted: EncryptedGateway, pki: Pki, tmp_path: Path) -> None:
    client = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"{HOST}:{encrypted.mqtts_port}", "-tls1_3", "-CAfile",
        str(pki.authority.file),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    heard = b""

    async def hear(words: bytes) -> None:
        nonlocal heard
        while words not in heard:
            data = await asyncio.wait_for(client.stdout.read(65536), 30)  # type: ignore[union-attr]
            assert data, heard
            heard += data
        heard = heard.partition(words)[2]

    client.stdin.write(mqtt.encode(mqtt.Connect("keys", clean_session=True)))
    await hear(CONNACK)
    for _ in range(3):
        client.stdin.write(b"K\n")  # new keys, and asks the server for its
        await hear(b"KEYUPDATE")
        client.stdin.write(PINGREQ)
        await hear(PINGRESP)
    client.stdin.close()
    await client.wait()


@contextlib.asynccontextmanager
async def older_connection(
    gateway: EncryptedGateway, pki: Pki, client_id: str
) -> AsyncIterator[asyncio.StreamReader]:
    """Connect a client, whose connection another one of the same client ID takes over."""
    context = ssl.create_default_context(cafile=pki.authority.file)
    reader, writer = await asyncio.open_connection(
        HOST, gateway.mqtts_port, ssl=context, server_hostname="localhost"
    )
    writer.write(connect(client_id))
    assert await reader.readexactly(len(CONNACK)) == CONNACK
    writer.write(PINGREQ)
    assert await reader.readexactly(len(PINGRESP)) == PINGRESP
    yield reader
    writer.close()


def connect(client_id: str) -> bytes:
    return mqtt.encode(mqtt.Connect(client_id, clean_session=False))


async def test_the_answer_to_a_change_of_keys_goes_to_its_own_connection(
    encrypted: EncryptedGateway, pki: Pki
) -> None:
    async with asyncio.timeout(TIMEOUT_S), older_connection(encrypted, pki, "changes") as older:
        client = await OpensslClient.connect(HOST, encrypted.mqtts_port)
        client.update_keys()
        client.write(connect("changes"))
        client.flush()
        assert await older.read() == b""  # the older connection ends, and all that came was for it
        assert await client.receive() == RESUMED
        client.write(PINGREQ)
        client.flush()
        assert await client.receive() == PINGRESP
        await client.close()


async def test_the_answer_to_a_new_handshake_goes_to_its_own_connection(
    encrypted: EncryptedGateway, pki: Pki
) -> None:
    """The client sends CONNECT directly behind the ClientHello, which OpenSSL refuses with an alert."""
    async with asyncio.timeout(TIMEOUT_S), older_connection(encrypted, pki, "renegotiates") as older:
        client = await OpensslClient.connect(HOST, encrypted.mqtts_port, TLS_1_2)
        sealed = client.seal(connect("renegotiates"), AFTER_CLIENT_HELLO)
        client.ask_for_handshake()
        client.flush(sealed)
        assert await older.read() == b""
        kind, alert = await client.record()
        assert (kind, len(alert)) == (ALERT, EXPLICIT_NONCE + ALERT_SIZE + TAG)
        kind, connack = await client.record()
        assert (kind, len(connack)) == (APPLICATION_DATA, EXPLICIT_NONCE + len(RESUMED) + TAG)
        await client.close()
