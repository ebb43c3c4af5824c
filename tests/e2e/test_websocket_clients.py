"""MQTT over WebSocket with paho, plain and over TLS, and with certificates."""

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator

import paho.mqtt.client as paho
import pytest
from kaa_ext import Extension
from kaa_ext.services import echo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.support.encrypted import EncryptedGateway, Pki
from tests.support.nats import NatsServer, free_port

NewToken = Callable[[], str]

TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def encrypted(shared_nats: NatsServer, pki: Pki) -> Iterator[EncryptedGateway]:
    websocket = {"enabled": True, "port": free_port(), "tls": pki.section("required")}
    with EncryptedGateway(shared_nats.url, {"mqtt": {"websocket": websocket}}) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log, gateway.log


@pytest.fixture
async def echo_extension(shared_nats: NatsServer) -> AsyncIterator[Extension]:
    extension = Extension("echo", nats_urls=[shared_nats.url])
    echo.register(extension)
    async with extension:
        yield extension


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv31, MQTTProtocolVersion.MQTTv311])
async def test_paho(
    encrypted: EncryptedGateway,
    pki: Pki,
    echo_extension: Extension,
    new_token: NewToken,
    scheme: str,
    protocol: MQTTProtocolVersion,
) -> None:
    """Small messages and one that is many frames, TLS records and segments, at each QoS."""
    token = new_token()
    payloads = [b"small", bytes(range(256)) * 2000, b""]

    def speak() -> list[bytes]:
        messages: queue.Queue[bytes] = queue.Queue()
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"paho-{token}", protocol=protocol, transport="websockets"
        )
        client.ws_set_options("/ws")
        client.on_message = lambda _, __, message: messages.put(bytes(message.payload))
        if scheme == "wss":
            client.tls_set(str(pki.authority.file), str(pki.device.cert_file), str(pki.device.key_file))
        client.connect("localhost", encrypted.wss_port if scheme == "wss" else encrypted.ws_port)
        client.loop_start()
        try:
            for qos, payload in enumerate(payloads):
                info = client.publish(f"kp1/app_v1/echo/{token}/hello/{qos}", payload, qos)
                info.wait_for_publish(TIMEOUT_S)
            return [messages.get(timeout=TIMEOUT_S) for _ in payloads]
        finally:
            client.disconnect()
            client.loop_stop()

    assert await asyncio.to_thread(speak) == payloads
