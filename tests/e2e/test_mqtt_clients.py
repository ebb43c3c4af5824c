"""MQTT clients that others wrote, against the gateway and an extension on the SDK: paho, aiomqtt, Mosquitto's."""

import asyncio
import queue
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
from kaa_ext import Extension
from kaa_ext.services import echo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.nats import HOST, NatsServer

NewToken = Callable[[], str]

TIMEOUT_S = 20.0

needs_mosquitto = pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None or shutil.which("mosquitto_sub") is None,
    reason="mosquitto_pub and mosquitto_sub are not installed (package mosquitto-clients)",
)


@pytest.fixture
async def echo_extension(shared_nats: NatsServer) -> AsyncIterator[Extension]:
    extension = Extension("echo", nats_urls=[shared_nats.url])
    echo.register(extension)
    async with extension:
        yield extension


class PahoDevice:
    """A paho client with its own thread; `messages` are (topic, payload, QoS) as they come."""

    def __init__(self, port: int, **settings: Any) -> None:
        self.messages: queue.Queue[tuple[str, bytes, int]] = queue.Queue()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, **settings)
        self.client.on_message = lambda _, __, m: self.messages.put((m.topic, bytes(m.payload), m.qos))
        self.client.connect(HOST, port)
        self.client.loop_start()

    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        """Publish and wait until the QoS's handshake is complete."""
        info = self.client.publish(topic, payload, qos)
        info.wait_for_publish(TIMEOUT_S)
        assert info.is_published()

    def next(self) -> tuple[str, bytes, int]:
        return self.messages.get(timeout=TIMEOUT_S)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv31, MQTTProtocolVersion.MQTTv311])
async def test_paho_at_every_qos_both_ways(
    shared_gateway: GatewayProcess,
    shared_nats: NatsServer,
    echo_extension: Extension,
    new_token: NewToken,
    protocol: MQTTProtocolVersion,
) -> None:
    """The answer comes at the QoS of the request; a push at the QoS that was subscribed."""
    token = new_token()

    def speak() -> list[tuple[str, bytes, int]]:
        device = PahoDevice(shared_gateway.mqtt_port, client_id=f"paho-{token}", protocol=protocol)
        try:
            device.client.subscribe(f"kp1/app_v1/+/{token}/#", 2)
            received = []
            for qos in (0, 1, 2):
                device.publish(f"kp1/app_v1/echo/{token}/hello/{qos}", b"payload %d" % qos, qos)
                received.append(device.next())
            asyncio.run_coroutine_threadsafe(push(), loop).result(TIMEOUT_S)
            received.append(device.next())
            return received
        finally:
            device.close()

    async def push() -> None:
        await echo_extension.push(token, "/pushed", b"unasked")

    loop = asyncio.get_running_loop()
    base = f"kp1/app_v1/echo/{token}"
    assert await asyncio.to_thread(speak) == [
        (f"{base}/hello/0/status", b"payload 0", 0),
        (f"{base}/hello/1/status", b"payload 1", 1),
        (f"{base}/hello/2/status", b"payload 2", 2),
        (f"{base}/pushed/status", b"unasked", 2),
    ]


async def test_paho_gets_pushes_while_it_was_away(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, new_token: NewToken
) -> None:
    """A persistent session: what was pushed at QoS 1 meanwhile comes on reconnect, in order."""
    token = new_token()
    device = await asyncio.to_thread(
        lambda: PahoDevice(shared_gateway.mqtt_port, client_id=f"paho-{token}", clean_session=False)
    )
    async with Cluster(shared_nats.url) as cluster:
        await asyncio.to_thread(lambda: device.client.subscribe(f"kp1/app_v1/dcx/{token}/#", 1))
        await cluster.connectivity("connected", token)
        await asyncio.to_thread(device.close)
        await cluster.connectivity("disconnected", token)
        for number in range(5):
            await cluster.push(token, b"%d" % number)
        await asyncio.to_thread(device.client.reconnect)
        device.client.loop_start()
        try:
            for number in range(5):
                expected = (f"kp1/app_v1/dcx/{token}/json/status", b"%d" % number, 1)
                assert await asyncio.to_thread(device.next) == expected
        finally:
            await asyncio.to_thread(device.close)


async def test_aiomqtt_many_requests_in_flight(
    shared_gateway: GatewayProcess, echo_extension: Extension, new_token: NewToken
) -> None:
    token = new_token()
    base = f"kp1/app_v1/echo/{token}/json"
    async with aiomqtt.Client(HOST, shared_gateway.mqtt_port, identifier=f"aiomqtt-{token}") as device:
        await device.subscribe(f"{base}/#", qos=1)
        await asyncio.gather(*(device.publish(f"{base}/{n}", b"%d" % n, qos=n % 3) for n in range(200)))
        received = {}
        async with asyncio.timeout(TIMEOUT_S):
            async for message in device.messages:
                assert str(message.topic) not in received
                received[str(message.topic)] = (message.payload, message.qos)
                if len(received) == 200:
                    break
    assert received == {f"{base}/{n}/status": (b"%d" % n, min(n % 3, 1)) for n in range(200)}


async def test_aiomqtt_gets_the_error_of_a_handler(
    shared_gateway: GatewayProcess, echo_extension: Extension, new_token: NewToken
) -> None:
    topic = f"kp1/app_v1/echo/{new_token()}/status/418/1"
    async with aiomqtt.Client(HOST, shared_gateway.mqtt_port) as device:
        await device.publish(topic, b"tea", qos=1)
        async with asyncio.timeout(TIMEOUT_S):
            message = await anext(aiter(device.messages))
    assert (str(message.topic), message.payload, message.qos) == (
        f"{topic}/error",
        b'{"statusCode":418,"reasonPhrase":"I\'m a Teapot"}',
        1,
    )


@needs_mosquitto
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", ["mqttv31", "mqttv311"])
async def test_mosquitto_pub(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, new_token: NewToken, qos: int, version: str
) -> None:
    token = new_token()
    command = [
        "mosquitto_pub",
        "-h",
        HOST,
        "-p",
        str(shared_gateway.mqtt_port),
        "-V",
        version,
        "-q",
        str(qos),
    ]
    async with Cluster(shared_nats.url, "dcx") as cluster:
        process = await asyncio.create_subprocess_exec(
            *command, "-i", token, "-t", f"kp1/app_v1/dcx/{token}/json/1", "-m", "hello"
        )
        assert await asyncio.wait_for(process.wait(), TIMEOUT_S) == 0
        request = await cluster.request()
    assert request.fields["payload"] == b"hello"


@needs_mosquitto
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_mosquitto_sub(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, new_token: NewToken, qos: int
) -> None:
    """Subscribing is enough to be there; the event says when."""
    token = new_token()
    command = ["mosquitto_sub", "-h", HOST, "-p", str(shared_gateway.mqtt_port), "-q", str(qos), "-C", "2"]
    async with Cluster(shared_nats.url) as cluster:
        process = await asyncio.create_subprocess_exec(
            *command, "-F", "%t %q %p", "-t", f"kp1/app_v1/dcx/{token}/#", stdout=subprocess.PIPE
        )
        await cluster.connectivity("connected", token)
        for payload in (b"one", b"two"):
            await cluster.push(token, payload)
        output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    topic = f"kp1/app_v1/dcx/{token}/json/status"
    assert output.decode().splitlines() == [f"{topic} {qos} one", f"{topic} {qos} two"]
