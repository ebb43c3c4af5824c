"""Clients that others have written, behind two gateways of two workers each: the kernel chooses the worker."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import ExitStack

import aiomqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.nats import HOST, NatsServer

VISITS = 12


@pytest.fixture(scope="module")
def replicas(shared_nats: NatsServer) -> Iterator[list[GatewayProcess]]:
    """Two replicas of one service instance."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                GatewayProcess(
                    shared_nats.url,
                    {
                        "service": {"instance": {"replica": {"id": f"replica-{number}"}}},
                        "kaa": {"kpc": {"workers": 2}},
                    },
                )
            )
            for number in range(2)
        ]


def visit(port: int, client_id: str, protocol: MQTTProtocolVersion) -> bool:
    """Connect with paho, and disconnect. Return whether there was a session."""
    clean_session = None if protocol == MQTTProtocolVersion.MQTTv5 else False
    client = paho.Client(
        callback_api_version=CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=protocol,
        clean_session=clean_session,
    )
    present: list[bool] = []
    client.on_connect = lambda client, data, flags, reason, properties: present.append(flags.session_present)
    if protocol == MQTTProtocolVersion.MQTTv5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 60
        client.connect(HOST, port, clean_start=False, properties=properties)
    else:
        client.connect(HOST, port)
    while not present:
        client.loop(0.1)
    client.disconnect()
    client.loop(0.1)
    return present[0]


@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5])
async def test_paho_resumes_on_each_visit(
    replicas: list[GatewayProcess], protocol: MQTTProtocolVersion
) -> None:
    present = [
        await asyncio.to_thread(visit, replicas[number % 2].mqtt_port, f"paho-{protocol}", protocol)
        for number in range(VISITS)
    ]
    assert present == [False] + [True] * (VISITS - 1)
    assert sum(gateway.count("sessions_moved", "in") for gateway in replicas) >= VISITS - 1


async def messages_of(client: aiomqtt.Client) -> list[aiomqtt.Message]:
    """Return all messages until the connection ends, which raises MqttError."""
    return [message async for message in client.messages]


async def test_aiomqtt_is_closed_when_it_has_connected_elsewhere(replicas: list[GatewayProcess]) -> None:
    first = aiomqtt.Client(HOST, replicas[0].mqtt_port, identifier="aio", clean_session=False)
    second = aiomqtt.Client(HOST, replicas[1].mqtt_port, identifier="aio", clean_session=False)
    async with second:
        pass
    await first.__aenter__()
    async with second:
        ended = asyncio.create_task(messages_of(first))
        with pytest.raises(aiomqtt.MqttError):
            await asyncio.wait_for(ended, 20)
        await second.publish("kp1/app_v1/dcx/aio/json", b"{}", qos=1)


@pytest.mark.skipif(shutil.which("mosquitto_sub") is None, reason="mosquitto-clients is not installed")
async def test_mosquitto_sub_gets_what_has_waited_on_another_replica(
    replicas: list[GatewayProcess], shared_nats: NatsServer
) -> None:
    async def subscribe(port: int, *more: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            "mosquitto_sub", "-h", HOST, "-p", str(port), "-i", "mosquitto", "-c", "-q", "1",
            "-t", "kp1/app_v1/dcx/mosquitto/#", *more, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 30)
        return out

    async with Cluster(shared_nats.url, "dcx") as cluster:
        await subscribe(replicas[0].mqtt_port, "-E")
        await cluster.connectivity("connected", "mosquitto")
        await cluster.connectivity("disconnected", "mosquitto")
        await cluster.push("mosquitto", b"waited")
        await asyncio.sleep(0.2)
        assert await subscribe(replicas[1].mqtt_port, "-C", "1", "-W", "20") == b"waited\n"
    await until(lambda: replicas[1].count("sessions_moved", "in") > 0, "the metric")
