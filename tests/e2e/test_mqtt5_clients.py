"""MQTT 5 clients that others wrote, against the gateway and an extension: Mosquitto's, paho, aiomqtt, MQTT.js."""

import asyncio
import json
import os
import queue
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
from kaa_ext import Extension
from kaa_ext.services import echo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.nats import HOST, NatsServer

NewToken = Callable[[], str]

TIMEOUT_S = 20.0
MQTTJS = Path(sys.prefix) / "mqttjs" / "node_modules"
"""Where `make mqttjs` installs it."""
DEVICE_JS = Path(__file__).parents[1] / "support" / "mqttjs" / "device.js"

needs_mosquitto = pytest.mark.skipif(
    shutil.which("mosquitto_rr") is None, reason="mosquitto_rr is not installed (package mosquitto-clients)"
)
needs_mqttjs = pytest.mark.skipif(
    shutil.which("node") is None or not MQTTJS.is_dir(), reason="MQTT.js is not installed (make mqttjs)"
)


def properties(packet_type: int, **values: Any) -> Properties:
    """Properties of paho by their names there."""
    result = Properties(packet_type)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(result, name, value)
    return result


@pytest.fixture
async def echo_extension(shared_nats: NatsServer) -> AsyncIterator[Extension]:
    extension = Extension("echo", nats_urls=[shared_nats.url])
    echo.register(extension)
    async with extension:
        yield extension


class PahoDevice:
    """A paho client of MQTT 5 with its own thread, and what it has seen, in order."""

    def __init__(self, port: int, client_id: str = "", *, clean_start: bool = True, **connect: Any) -> None:
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.published: queue.Queue[ReasonCode] = queue.Queue()
        self.disconnected: queue.Queue[ReasonCode] = queue.Queue()
        self.connected: queue.Queue[tuple[ReasonCode, Any, bool]] = queue.Queue()
        self.subscribed: queue.Queue[list[ReasonCode]] = queue.Queue()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        self.client.on_message = lambda _, __, message: self.messages.put(message)
        self.client.on_publish = lambda _, __, ___, code, ____: self.published.put(code)
        self.client.on_disconnect = lambda _, __, ___, code, ____: self.disconnected.put(code)
        self.client.on_subscribe = lambda _, __, ___, codes, ____: self.subscribed.put(codes)
        self.client.on_connect = lambda _, __, flags, code, props: self.connected.put(
            (code, props, flags.session_present)
        )
        self.client.connect(
            HOST,
            port,
            clean_start=clean_start,
            properties=properties(PacketTypes.CONNECT, **connect) if connect else None,
        )
        self.client.loop_start()
        self.code, self.properties, self.session_present = self.connected.get(timeout=TIMEOUT_S)

    def publish(self, topic: str, payload: bytes, qos: int = 0, **values: Any) -> ReasonCode:
        """Publish, and return the reason code of the acknowledgement."""
        self.client.publish(
            topic, payload, qos, properties=properties(PacketTypes.PUBLISH, **values) if values else None
        )
        return self.published.get(timeout=TIMEOUT_S)

    def subscribe(self, topic: str, qos: int, **values: Any) -> list[ReasonCode]:
        self.client.subscribe(
            topic,
            options=SubscribeOptions(qos),
            properties=properties(PacketTypes.SUBSCRIBE, **values) if values else None,
        )
        return self.subscribed.get(timeout=TIMEOUT_S)

    def next(self) -> Any:
        return self.messages.get(timeout=TIMEOUT_S)

    def close(self, **values: Any) -> None:
        self.client.disconnect(
            properties=properties(PacketTypes.DISCONNECT, **values) if values else None,
        )
        self.client.loop_stop()


# Mosquitto


@needs_mosquitto
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_mosquitto_pub(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, new_token: NewToken, qos: int
) -> None:
    token = new_token()
    command = ["mosquitto_pub", "-V", "5", "-h", HOST, "-p", str(shared_gateway.mqtt_port), "-q", str(qos)]
    extra = ["-D", "publish", "message-expiry-interval", "30", "-D", "publish", "user-property", "a", "b"]
    async with Cluster(shared_nats.url, "dcx") as cluster:
        process = await asyncio.create_subprocess_exec(
            *command, *extra, "-i", token, "-t", f"kp1/app_v1/dcx/{token}/json", "-m", "hello"
        )
        assert await asyncio.wait_for(process.wait(), TIMEOUT_S) == 0
        request = await cluster.request()
    assert (request.fields["payload"], request.fields["timeout"]) == (b"hello", 30_000)


@needs_mosquitto
async def test_mosquitto_pub_many_lines_with_an_alias(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, new_token: NewToken
) -> None:
    """It sets the alias with each line, and leaves the topic out after the first."""
    token = new_token()
    async with Cluster(shared_nats.url, "dcx") as cluster:
        process = await asyncio.create_subprocess_exec(
            "mosquitto_pub", "-V", "5", "-h", HOST, "-p", str(shared_gateway.mqtt_port), "-q", "1",
            "-D", "publish", "topic-alias", "5", "-t", f"kp1/app_v1/dcx/{token}/json", "-l",
            stdin=subprocess.PIPE,
        )  # fmt: skip
        await asyncio.wait_for(
            process.communicate(b"\n".join(b"%d" % n for n in range(50)) + b"\n"), TIMEOUT_S
        )
        assert process.returncode == 0
        requests = await cluster.next_requests(50)
    assert [request.fields["payload"] for request in requests] == [b"%d" % number for number in range(50)]


@needs_mosquitto
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_mosquitto_sub(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, new_token: NewToken, qos: int
) -> None:
    token = new_token()
    command = ["mosquitto_sub", "-V", "5", "-h", HOST, "-p", str(shared_gateway.mqtt_port), "-q", str(qos)]
    async with Cluster(shared_nats.url) as cluster:
        process = await asyncio.create_subprocess_exec(
            *command,
            "-C",
            "2",
            "-F",
            "%t %q %p %E",
            "-t",
            f"kp1/app_v1/dcx/{token}/#",
            stdout=subprocess.PIPE,
        )
        await cluster.connectivity("connected", token)
        await cluster.push(token, b"one", timeout=100_000)
        await cluster.push(token, b"two", timeout=100_000)
        output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    topic = f"kp1/app_v1/dcx/{token}/json/status"
    lines = output.decode().splitlines()
    assert [line.rpartition(" ")[0] for line in lines] == [f"{topic} {qos} one", f"{topic} {qos} two"]
    assert all(int(line.rpartition(" ")[2]) in (99, 100) for line in lines)


@needs_mosquitto
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_mosquitto_rr(
    shared_gateway: GatewayProcess, echo_extension: Extension, new_token: NewToken, qos: int
) -> None:
    """A request with a Response Topic, and its answer."""
    process = await asyncio.create_subprocess_exec(
        "mosquitto_rr", "-V", "5", "-h", HOST, "-p", str(shared_gateway.mqtt_port), "-q", str(qos),
        "-t", f"kp1/app_v1/echo/{new_token()}/hello", "-e", f"my/answers/{qos}", "-m", "question", "-F", "%t %p",
        stdout=subprocess.PIPE,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert (process.returncode, output.decode().strip()) == (0, f"my/answers/{qos} question")


# paho


async def test_paho_at_every_qos(
    shared_gateway: GatewayProcess, echo_extension: Extension, new_token: NewToken
) -> None:
    token = new_token()
    base = f"kp1/app_v1/echo/{token}/hello"

    def speak() -> list[tuple[str, bytes, int]]:
        device = PahoDevice(shared_gateway.mqtt_port)
        try:
            assert device.code == 0
            assert device.properties.AssignedClientIdentifier
            device.subscribe(f"{base}/#", 2)
            received = []
            for qos in (0, 1, 2):
                device.publish(f"{base}/{qos}", b"payload %d" % qos, qos)
                message = device.next()
                received.append((message.topic, bytes(message.payload), message.qos))
            return received
        finally:
            device.close()

    assert await asyncio.to_thread(speak) == [
        (f"{base}/{qos}/status", b"payload %d" % qos, qos) for qos in (0, 1, 2)
    ]


async def test_paho_sees_why_a_message_was_refused(
    shared_gateway: GatewayProcess, new_token: NewToken
) -> None:
    def speak() -> list[int]:
        device = PahoDevice(shared_gateway.mqtt_port)
        try:
            return [
                device.publish(topic, b"x", 1).value
                for topic in (f"kp1/app_v1/tsx/{new_token()}/json", f"kp1/app_v9/tsx/{new_token()}/json")
            ]
        finally:
            device.close()

    assert await asyncio.to_thread(speak) == [0x80, 0x90]


async def test_paho_with_aliases_both_ways(
    shared_gateway: GatewayProcess, echo_extension: Extension, new_token: NewToken
) -> None:
    base = f"kp1/app_v1/echo/{new_token()}/hello"

    def speak() -> list[tuple[bytes, bytes]]:
        device = PahoDevice(shared_gateway.mqtt_port, TopicAliasMaximum=5)
        try:
            assert device.properties.TopicAliasMaximum == 64
            received = []
            for number in range(4):
                values: dict[str, Any] = {
                    "TopicAlias": 2,
                    "ResponseTopic": "answers",
                    "CorrelationData": b"%d" % number,
                }
                device.publish("" if number else base, b"payload %d" % number, 1, **values)
                message = device.next()
                received.append((bytes(message.payload), message.properties.CorrelationData))
            return received
        finally:
            device.close()

    assert await asyncio.to_thread(speak) == [(b"payload %d" % number, b"%d" % number) for number in range(4)]


async def test_paho_comes_back_to_its_session(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, new_token: NewToken
) -> None:
    """What was pushed meanwhile comes on reconnect, with its subscription identifier; DISCONNECT ends the session."""
    token = new_token()
    port = shared_gateway.mqtt_port

    def connect(clean_start: bool) -> PahoDevice:
        return PahoDevice(port, token, clean_start=clean_start, SessionExpiryInterval=60)

    async with Cluster(shared_nats.url) as cluster:
        device = await asyncio.to_thread(connect, True)
        await asyncio.to_thread(
            lambda: device.subscribe(f"kp1/app_v1/dcx/{token}/#", 1, SubscriptionIdentifier=11)
        )
        await cluster.connectivity("connected", token)
        await asyncio.to_thread(device.close)
        await cluster.connectivity("disconnected", token)
        for number in range(3):
            await cluster.push(token, b"%d" % number, timeout=60_000)
        again = await asyncio.to_thread(connect, False)
        assert again.session_present
        messages = [await asyncio.to_thread(again.next) for _ in range(3)]
        assert [bytes(message.payload) for message in messages] == [b"0", b"1", b"2"]
        assert messages[0].properties.SubscriptionIdentifier == [11]
        assert messages[0].properties.MessageExpiryInterval <= 60
        await asyncio.to_thread(lambda: again.close(SessionExpiryInterval=0))
        last = await asyncio.to_thread(connect, False)
        assert not last.session_present
        await asyncio.to_thread(lambda: last.close(SessionExpiryInterval=0))


async def test_paho_reads_why_the_gateway_goes(nats_server: NatsServer) -> None:
    with GatewayProcess(nats_server.url) as gateway:
        device = await asyncio.to_thread(PahoDevice, gateway.mqtt_port)
        device.client.reconnect_delay_set(60, 60)
        gateway.terminate()
        code = await asyncio.to_thread(device.disconnected.get, timeout=TIMEOUT_S)
        device.client.loop_stop()
    assert code.value == 0x8B


async def test_paho_is_refused_a_shared_subscription(shared_gateway: GatewayProcess) -> None:
    def speak() -> list[int]:
        device = PahoDevice(shared_gateway.mqtt_port)
        try:
            assert device.properties.SharedSubscriptionAvailable == 0
            assert device.properties.RetainAvailable == 0
            return [code.value for code in device.subscribe("$share/group/a", 1)]
        finally:
            device.close()

    assert await asyncio.to_thread(speak) == [0x9E]


# aiomqtt


async def test_aiomqtt_requests_in_flight(
    shared_gateway: GatewayProcess, echo_extension: Extension, new_token: NewToken
) -> None:
    """Two hundred, with Response Topic and Correlation Data, at every QoS, within its Receive Maximum."""
    base = f"kp1/app_v1/echo/{new_token()}/json"
    limits = properties(PacketTypes.CONNECT, ReceiveMaximum=20)
    async with aiomqtt.Client(
        HOST, shared_gateway.mqtt_port, protocol=aiomqtt.ProtocolVersion.V5, properties=limits
    ) as device:

        def request(number: int) -> Properties:
            return properties(
                PacketTypes.PUBLISH, ResponseTopic=f"answers/{number % 5}", CorrelationData=b"%d" % number
            )

        await asyncio.gather(
            *(device.publish(base, b"%d" % n, qos=n % 3, properties=request(n)) for n in range(200))
        )
        received = {}
        async with asyncio.timeout(TIMEOUT_S):
            async for message in device.messages:
                data = message.properties.CorrelationData  # type: ignore[union-attr]
                received[data] = (str(message.topic), message.payload, message.qos)
                if len(received) == 200:
                    break
    assert received == {b"%d" % n: (f"answers/{n % 5}", b"%d" % n, n % 3) for n in range(200)}


async def test_aiomqtt_will(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, new_token: NewToken
) -> None:
    """DISCONNECT deletes it."""
    token = new_token()
    topic = f"kp1/app_v1/dcx/{token}"
    will = aiomqtt.Will(
        f"{topic}/will", b"will", 1, properties=properties(PacketTypes.WILLMESSAGE, WillDelayInterval=0)
    )
    async with Cluster(shared_nats.url, "dcx") as cluster:
        async with aiomqtt.Client(
            HOST, shared_gateway.mqtt_port, protocol=aiomqtt.ProtocolVersion.V5, will=will
        ) as device:
            await device.publish(f"{topic}/json", b"message", qos=1)
        async with aiomqtt.Client(
            HOST, shared_gateway.mqtt_port, protocol=aiomqtt.ProtocolVersion.V5
        ) as device:
            await device.publish(f"{topic}/json", b"last", qos=1)
        payloads = [request.fields["payload"] for request in await cluster.next_requests(2)]
    assert payloads == [b"message", b"last"]


# MQTT.js


@needs_mqttjs
async def test_mqttjs(shared_gateway: GatewayProcess, echo_extension: Extension, new_token: NewToken) -> None:
    """Assigned client identifier, aliases both ways, Response Topic, subscription identifier, a refusal, DISCONNECT."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(DEVICE_JS),
        f"mqtt://{HOST}:{shared_gateway.mqtt_port}",
        new_token(),
        env=os.environ | {"NODE_PATH": str(MQTTJS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 2 * TIMEOUT_S)
    assert process.returncode == 0, errors.decode()
    seen = json.loads(output)
    assert seen["errors"] == []
    assert seen["connack"]["code"] == 0
    assert seen["connack"]["assignedClientIdentifier"]
    assert seen["connack"]["responseInformation"]
    assert [
        (each["name"], each["payload"], each["qos"], each["data"], each["identifier"])
        for each in seen["answers"]
    ] == [("answers/1", "alias", 1, "id", 7), ("answers/1", "aliased", 1, "id", 7)]
    assert all(each["user"]["statusCode"] == "200" for each in seen["answers"])
    assert seen["refused"] == 0x90
