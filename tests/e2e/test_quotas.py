"""Quotas over all four protocols, and changed while the gateway runs.

A quota of one byte a second that a large message has used up has no room for hours, however slow the machine is.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiocoap
import httpx
import pytest
from kaa_bench.mqtt_packets import Puback, Publish
from kaa_bench.peers.kpudp_client import RefusedError

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.kpudp import client
from tests.support.mqtt import mqtt_client
from tests.support.mqtt5 import packets
from tests.support.mqtt5.peer import mqtt5_client
from tests.support.mqtt5.properties import Property
from tests.support.nats import HOST, NatsServer

LARGE = bytes(1000)
TIMEOUT_S = 60.0
HOUR_S = 3600


def with_quota(**quotas: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a quota or an endpoint-quota of app_v1."""
    named = {name.replace("_", "-"): quota for name, quota in quotas.items()}
    return {"kaa": {"applications": {"app": {"versions": {"app_v1": named}}}}}


BYTE = with_quota(endpoint_quota={"bytes-per-second": 1})
FREE = with_quota(endpoint_quota={"bytes-per-second": 0})


@pytest.fixture
async def cluster(nats_server: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(nats_server.url, "dcx") as cluster:
        yield cluster


@pytest.fixture
def gateway(nats_server: NatsServer, cluster: Cluster) -> Any:
    with GatewayProcess(nats_server.url, BYTE) as gateway:
        yield gateway


async def test_mqtt_publishes_an_error_and_acknowledges(gateway: GatewayProcess, cluster: Cluster) -> None:
    topic = "kp1/app_v1/dcx/one/json"
    async with mqtt_client(gateway.mqtt_port) as peer:
        await peer.send(Publish(topic, LARGE, 1, 1))
        assert (await peer.expect(Puback)).packet_id == 1
        await peer.send(Publish(f"{topic}/5", b"over", 1, 2))
        packets = [await peer.receive(), await peer.receive()]
        (error,) = [each for each in packets if isinstance(each, Publish)]
        assert error.topic == f"{topic}/5/error"
        assert b'"statusCode":429' in error.payload
        assert any(isinstance(each, Puback) and each.packet_id == 2 for each in packets)
        # A message that nobody acknowledges or answers is refused as well.
        await peer.send(Publish(topic, b"over"))
        await peer.until_pingresp()
    assert gateway.count("events", "refused", "endpoint_byte_rate") == 2
    assert len(cluster.requests) == 1


async def test_mqtt_5_has_a_reason_code(gateway: GatewayProcess, cluster: Cluster) -> None:
    async with mqtt5_client(gateway.mqtt_port) as peer:
        for packet_id, reason_code in ((1, 0), (2, 0x97)):
            await peer.send(packets.Publish("kp1/app_v1/dcx/one/json", LARGE, 1, packet_id))
            puback = await peer.expect(packets.Puback)
            assert (puback.packet_id, puback.reason_code) == (packet_id, reason_code)
        assert puback.get(Property.REASON_STRING) == "The endpoint sends too many bytes"


async def test_http_is_429_with_retry_after(gateway: GatewayProcess, cluster: Cluster) -> None:
    url = f"http://{HOST}:{gateway.http_port}/kp1/app_v1/dcx/one/json"
    async with mqtt_client(gateway.mqtt_port) as peer:
        await peer.send(Publish("kp1/app_v1/dcx/one/json", bytes(10 * HOUR_S), 1, 1))
        await peer.expect(Puback)
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as device:
        # Of the same endpoint, over another protocol and connection.
        answer = await device.post(url, content=b"over")
        assert answer.status_code == 429
        assert answer.json() == {"statusCode": 429, "reasonPhrase": "The endpoint sends too many bytes"}
        assert HOUR_S < int(answer.headers["Retry-After"]) <= 10 * HOUR_S + 1
        # Another configuration holds for connections and routes that are there.
        gateway.config_path.write_text(json.dumps(gateway.document_with(FREE)))
        await until(lambda: gateway.count("config_reloads", "applied") == 1, "the configuration is applied")
        asked = asyncio.create_task(device.post(url, content=b"free"))
        await cluster.answer((await cluster.next_requests(1, after=1))[0])
        assert (await asked).status_code == 200


async def test_coap_is_4_29_with_max_age(gateway: GatewayProcess, cluster: Cluster) -> None:
    async with mqtt_client(gateway.mqtt_port) as peer:
        await peer.send(Publish("kp1/app_v1/dcx/one/json", bytes(10 * HOUR_S), 1, 1))
        await peer.expect(Puback)
    context = await aiocoap.Context.create_client_context(transports=["simple6"])
    try:
        uri = f"coap://{HOST}:{gateway.coap_port}/kp1/app_v1/dcx/one/json"
        message = aiocoap.Message(code=aiocoap.POST, uri=uri, payload=b"over")
        answer = await context.request(message).response
        assert answer.code.dotted == "4.29"
        assert answer.payload == b"The endpoint sends too many bytes"
        assert HOUR_S < answer.opt.max_age <= 10 * HOUR_S + 1
    finally:
        await context.shutdown()


async def test_kpudp_is_429(gateway: GatewayProcess, cluster: Cluster) -> None:
    path = "kp1/app_v1/dcx/one/json"
    async with client(gateway.udp_port) as device:
        await device.confirmed(path, LARGE)
        with pytest.raises(RefusedError) as refused:
            await device.confirmed(path, b"over")
        assert refused.value.reason == 429
        assert (await device.request(path, b"over")).status == 429
