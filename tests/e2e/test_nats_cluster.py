"""Durable mode on a cluster of three NATS servers: a stream's leader dies, and then there is no quorum to store."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from kaa_bench.peers.kpudp_client import KpudpClient

from tests.support.coap import CoapClient
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.load import Device, Store
from tests.support.nats import HOST, NatsServer
from tests.support.nats_cluster import TIMEOUT_S, NatsCluster

STREAM = "kaa-dcx"
PATH = "kp1/app_v1/dcx/thing/json"
SERVICE_UNAVAILABLE = 0xA3
"""5.03."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def durable(name: str, replicas: int) -> dict[str, Any]:
    """The configuration with one durable extension instance."""
    return {
        "kaa": {
            "extension-instances": {name: {"endpoint-aware": True, "durable": True}},
            "kpc": {"durable": {"ack-timeout": 1, "replicas": replicas}},
        }
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[NatsCluster]:
    """For all tests here, which leave its servers running."""
    with NatsCluster() as cluster:
        yield cluster


def gateway_on(cluster: NatsCluster) -> GatewayProcess:
    return GatewayProcess(",".join(cluster.urls), durable("dcx", 3))


def server_of(gateway: GatewayProcess, cluster: NatsCluster) -> NatsServer:
    """That to which the gateway has last connected."""
    *_, port = re.findall(r'nats://[\d.]+:(\d+)", "event": "connected to NATS"', gateway.log)
    return next(server for server in cluster.servers if server.port == int(port))


async def test_nothing_acknowledged_is_lost_when_the_leader_of_a_stream_is_killed(
    cluster: NatsCluster,
) -> None:
    """First the server that the gateway is connected to, then another one."""
    with gateway_on(cluster) as gateway:
        store = Store(*cluster.urls)
        async with store.extension:
            devices = [Device(gateway.mqtt_port, f"device-{number}", window=200) for number in range(3)]
            for device in devices:
                device.start()
            for own in (True, False):
                connected = server_of(gateway, cluster)
                leader = next(server for server in cluster.servers if (server is connected) == own)
                await cluster.lead(STREAM, leader)
                await asyncio.gather(*(device.acknowledges(500) for device in devices))
                leader.kill()
                await asyncio.gather(*(device.acknowledges(500) for device in devices))
                leader.start()
            await asyncio.gather(*(device.finish() for device in devices))
            for device in devices:
                assert len(device.acknowledged) == device.published
                assert not device.told
                await store.has_all(device)
            assert gateway.count("durable_backlog_bytes", "dcx") == 0
        assert "Traceback" not in gateway.log


async def test_without_a_quorum_nothing_is_success(cluster: NatsCluster) -> None:
    """The server that is left was the leader, and takes what comes: only the others can say that it is stored."""
    with gateway_on(cluster) as gateway:
        store = Store(*cluster.urls)
        async with store.extension:
            early, late = (Device(gateway.mqtt_port, token) for token in ("early", "late"))
            early.start()
            survivor = server_of(gateway, cluster)
            await cluster.lead(STREAM, survivor)
            await early.acknowledges(500)
            others = [server for server in cluster.servers if server is not survivor]
            for server in others:
                server.kill()

            async with (
                httpx.AsyncClient(timeout=TIMEOUT_S) as http,
                CoapClient(gateway.coap_port) as coap,
                KpudpClient(gateway.udp_port) as udp,
            ):
                late.start()
                confirmed = asyncio.create_task(udp.confirmed(PATH, b"1"))
                await until(lambda: late.published > 0, "the late device to publish")
                for query in ("", "?answer=no"):
                    answer = await http.post(f"http://{HOST}:{gateway.http_port}/{PATH}{query}", content=b"2")
                    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
                    request = coap.request(PATH, b"3")
                    coap.send(request)
                    # An empty acknowledgement, which says only that the request was received, has no token.
                    response = await coap.receive(lambda message: message.token == request.token)  # noqa: B023
                    assert response.code == SERVICE_UNAVAILABLE
                await until(
                    lambda: gateway.count("durable_up", "dcx") == 0, "the stream to be known as silent"
                )
                await until(lambda: gateway.count("durable_backlog_bytes", "dcx") > 0, "messages that wait")
                assert not late.acknowledged
                assert not confirmed.done()

                for server in others:
                    server.start()
                await asyncio.gather(early.acknowledges(500), late.acknowledges(500), confirmed)
            await asyncio.gather(early.finish(), late.finish())
            for device in (early, late):
                assert len(device.acknowledged) == device.published
                assert not device.told
                await store.has_all(device)
            await until(lambda: 1 in store.handled.get("thing", ()), "what was confirmed over KP/UDP")
        assert "Traceback" not in gateway.log


async def test_more_replicas_than_servers_are_waited_for(cluster: NatsCluster) -> None:
    """As they may be down only now."""
    gateway = GatewayProcess(",".join(cluster.urls), durable("cmx", 5))
    try:
        gateway.launch()
        await until(lambda: "no suitable peers for placement" in gateway.log, "a line in the log", TIMEOUT_S)
        assert gateway.running
        assert not gateway.ready()
        assert gateway.stop() == 0
    finally:
        gateway.close()
