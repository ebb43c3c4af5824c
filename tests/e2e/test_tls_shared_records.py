"""What OpenSSL answers by itself, when it comes together with what makes another connection write.

The connections of a listener share the buffer of records. An answer must go to its own connection. OpenSSL refuses a
new handshake of TLS 1.2 while it reads, so that record must be sent before the core has another connection write. It
answers a change of keys of TLS 1.3 with the next data that it writes to the connection.

Source: RFC 8446 section 4.6.3 (KeyUpdate); RFC 5246 section 7.4.1.1 (a new handshake); MQTT 3.1.4-3 (a client takes
over its older connection).
"""

import asyncio
import ssl
from collections.abc import Iterator

import pytest
from kaa_bench import mqtt_packets as mqtt

from tests.support.encrypted import EncryptedGateway, Pki
from tests.support.nats import HOST, NatsServer
from tests.support.openssl_client import APPLICATION_DATA, TLS_1_2, OpensslClient

TIMEOUT_S = 60.0
CONNACK, RESUMED = b"\x20\x02\x00\x00", b"\x20\x02\x01\x00"
PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"
ALERT, ALERT_SIZE = 21, 2
EXPLICIT_NONCE, TAG = 8, 16
AFTER_CLIENT_HELLO = 2
"""The number of a record: Finished and the ClientHello stand before it."""
CONNECT = mqtt.encode(mqtt.Connect("client", clean_session=False))


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def encrypted(shared_nats: NatsServer, pki: Pki) -> Iterator[EncryptedGateway]:
    with EncryptedGateway(shared_nats.url, {"mqtt": {"tls": pki.section("off")}}) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log, gateway.log


async def test_the_answer_to_a_change_of_keys_goes_to_its_own_connection(
    encrypted: EncryptedGateway, pki: Pki
) -> None:
    port = encrypted.mqtts_port
    context = ssl.create_default_context(cafile=pki.authority.file)
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(HOST, port, ssl=context, server_hostname="localhost")
        writer.write(CONNECT)
        assert await reader.readexactly(len(CONNACK)) == CONNACK
        writer.write(PINGREQ)
        assert await reader.readexactly(len(PINGRESP)) == PINGRESP
        client = await OpensslClient.connect(HOST, port)
        client.update_keys()
        client.write(CONNECT)
        client.flush()
        assert await reader.read() == b""  # the older connection ends, and all that came was for it
        assert await client.receive() == RESUMED
        client.write(PINGREQ)
        client.flush()
        assert await client.receive() == PINGRESP
        writer.close()
        await client.close()


async def test_the_answer_to_a_new_handshake_goes_to_its_own_connection(
    encrypted: EncryptedGateway, pki: Pki
) -> None:
    """The client sends CONNECT directly behind the ClientHello, which OpenSSL refuses with an alert."""
    port = encrypted.mqtts_port
    context = ssl.create_default_context(cafile=pki.authority.file)
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(HOST, port, ssl=context, server_hostname="localhost")
        writer.write(CONNECT)
        assert (await reader.readexactly(len(CONNACK)))[0] == CONNACK[0]
        client = await OpensslClient.connect(HOST, port, TLS_1_2)
        sealed = client.seal(CONNECT, AFTER_CLIENT_HELLO)
        client.ask_for_handshake()
        client.flush(sealed)
        assert await reader.read() == b""
        kind, alert = await client.record()
        assert (kind, len(alert)) == (ALERT, EXPLICIT_NONCE + ALERT_SIZE + TAG)
        kind, connack = await client.record()
        assert (kind, len(connack)) == (APPLICATION_DATA, EXPLICIT_NONCE + len(RESUMED) + TAG)
        writer.close()
        await client.close()
