"""A change of keys of TLS 1.3 that comes together with what makes another connection write.

The connections of a listener share the buffer of records. What OpenSSL answers to a change of keys must go to its own
connection, before the core has another one write.

Source: RFC 8446 section 4.6.3 (KeyUpdate); MQTT 3.1.4-3 (a client takes over its older connection).
"""

import asyncio
import ssl
from collections.abc import Iterator

import pytest
from kaa_bench import mqtt_packets as mqtt

from tests.support.encrypted import EncryptedGateway, Pki
from tests.support.nats import HOST, NatsServer
from tests.support.openssl_client import OpensslClient

TIMEOUT_S = 60.0
CONNACK, RESUMED = b"\x20\x02\x00\x00", b"\x20\x02\x01\x00"
PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"
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
