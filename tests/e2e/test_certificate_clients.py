"""A certificate is a client's credentials over each transport: one that the provider knows, and another."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from kaa_bench.mqtt_packets import Connect, encode
from kaa_ext import Extension
from kaa_ext.services import echo

from tests.support.certificates import Issued
from tests.support.encrypted import EncryptedGateway, Pki, run
from tests.support.esp import until
from tests.support.mqtt import MqttPeer
from tests.support.nats import HOST, NatsServer, free_port
from tests.support.websocket import BINARY, WebSocketPeer, frame, request

NewToken = Callable[[], str]

ACCEPTED, NOT_AUTHORIZED = 0, 5
KEY = b"an example key!!"


@pytest.fixture(scope="module")
def encrypted(shared_nats: NatsServer, pki: Pki) -> Iterator[EncryptedGateway]:
    """Of the certificates of the authority, the static file names one."""
    issuer = pki.authority.name.rfc4514_string()
    clients = pki.directory / "clients.yml"
    clients.write_text(json.dumps({"certificates": {issuer: {pki.device.serial_number: {}}}}))
    keys = pki.directory / "psk.yml"
    keys.write_text(f"keys: {{device-1: {KEY.hex()}}}\n")
    required = {"client-authentication": "required"}
    transports = {
        "mqtt": {
            **required,
            "tls": pki.section("required"),
            "websocket": {"enabled": True, "port": free_port(), "tls": pki.section("required")},
        },
        "coap": {"dtls": pki.section("optional", **required, **{"psk-file": str(keys)})},
    }
    identity = {"clients": {"provider": "static"}, "static": {"file": str(clients)}}
    with EncryptedGateway(shared_nats.url, transports, identity=identity) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log, gateway.log


@pytest.fixture
def other(pki: Pki) -> Issued:
    """A good certificate of the authority, which the provider does not know."""
    return pki.authority.issue("other-device")


@pytest.fixture
async def echo_extension(shared_nats: NatsServer) -> AsyncIterator[Extension]:
    extension = Extension("echo", nats_urls=[shared_nats.url])
    echo.register(extension)
    async with extension:
        yield extension


async def connect(pki: Pki, port: int, client: Issued) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context(cafile=pki.authority.file)
    context.load_cert_chain(client.cert_file, client.key_file)
    return await asyncio.open_connection(HOST, port, ssl=context, server_hostname="localhost")


async def test_mqtt_over_tls(encrypted: EncryptedGateway, pki: Pki, other: Issued) -> None:
    for client, code in ((pki.device, ACCEPTED), (other, NOT_AUTHORIZED)):
        reader, writer = await connect(pki, encrypted.mqtts_port, client)
        assert (await MqttPeer(reader, writer).connect("device")).return_code == code
        writer.close()


async def test_mqtt_over_websocket_over_tls(encrypted: EncryptedGateway, pki: Pki, other: Issued) -> None:
    for client, code in ((pki.device, ACCEPTED), (other, NOT_AUTHORIZED)):
        reader, writer = await connect(pki, encrypted.wss_port, client)
        peer = WebSocketPeer(reader, writer)
        await peer.send(request() + frame(BINARY, encode(Connect("device", keep_alive=0))))
        assert (await peer.head())[0] == 101
        assert await peer.receive() == (BINARY, bytes([0x20, 2, 0, code]))
        writer.close()


async def coap_client(gateway: EncryptedGateway, token: str, *options: str, wait: int = 30) -> str:
    _, output = await run(
        "coap-client-openssl", "-B", str(wait), "-m", "post", "-e", "hello", *options,
        f"coaps://{HOST}:{gateway.coaps_port}/kp1/app_v1/echo/{token}/hello",
    )  # fmt: skip
    return output


async def test_coap_over_dtls(
    encrypted: EncryptedGateway, pki: Pki, other: Issued, echo_extension: Extension, new_token: NewToken
) -> None:
    """An identity with its pre-shared key is known as it is."""

    def files(client: Issued) -> tuple[str, ...]:
        return "-c", str(client.cert_file), "-j", str(client.key_file), "-C", str(pki.authority.file)

    assert "hello" in await coap_client(encrypted, new_token(), *files(pki.device))
    assert "hello" in await coap_client(encrypted, new_token(), "-u", "device-1", "-k", KEY.decode())
    before = encrypted.count("events", "closed", "credentials_rejected")
    await coap_client(encrypted, new_token(), *files(other), wait=2)
    await until(
        lambda: encrypted.count("events", "closed", "credentials_rejected") > before,
        "the certificate's refusal",
    )
