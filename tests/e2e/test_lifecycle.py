"""9/ELCE of a whole gateway, over every transport: who is connected, and what was sent, read by the RFC's schemas."""

import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import aiocoap
import httpx
import pytest
from fastavro.schema import to_parsing_canonical_form
from kaa_bench.mqtt_packets import Disconnect, Publish
from kaa_bench.peers.kpudp_client import KpudpClient
from kaa_gateway.bus.flushing import flush

from tests.support import schemas
from tests.support.cluster import OUR_EVENT_SCHEMAS, STATISTICS, Cluster
from tests.support.esp import until
from tests.support.gateway import REPLICA, GatewayProcess
from tests.support.kpudp import client as kpudp_client
from tests.support.mqtt import MqttPeer, mqtt_client
from tests.support.nats import HOST, NatsServer

NewToken = Callable[[], str]
QUICK = {
    "kaa": {
        "applications": {"app": {"tenant": "tenant-1"}},
        "kpc": {"events": {"idle-timeout": 1, "traffic-period": 0.5}},
    }
}
"""Idle after a second, so that a test sees it."""


@pytest.mark.skipif(
    not schemas.RFC_DIRECTORY.is_dir(), reason="a copy of Kaa's RFCs is not beside this checkout"
)
@pytest.mark.parametrize("kind", OUR_EVENT_SCHEMAS)
def test_our_restatements_are_the_rfcs(kind: str) -> None:
    name, ours = OUR_EVENT_SCHEMAS[kind]
    rfc = json.loads((schemas.RFC_DIRECTORY / f"{name}.avsc").read_text(encoding="utf-8"))
    assert to_parsing_canonical_form(ours) == to_parsing_canonical_form(rfc)


@pytest.fixture(scope="module")
def quick_gateway(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    with GatewayProcess(shared_nats.url, QUICK) as process:
        yield process
        assert "Traceback" not in process.log, process.log


def history(cluster: Cluster, token: str) -> list[str]:
    """The events of an endpoint, in order."""
    return [kind for kind, fields in cluster.events if token in fields["endpoints"]]


async def comes(cluster: Cluster, token: str, count: int, kind: str) -> None:
    """Its next event, the `count`th, is of this kind."""
    await until(lambda: len(history(cluster, token)) >= count, f"event {count} of {token}: {kind}")
    assert history(cluster, token)[count - 1] == kind


class Devices:
    """A device of each kind without a connection; one connection or address for all that it sends."""

    def __init__(self, http: httpx.AsyncClient, coap: aiocoap.Context, udp: KpudpClient) -> None:
        self._http = http
        self._coap = coap
        self._udp = udp

    async def speak(self, gateway: GatewayProcess, cluster: Cluster, kind: str, token: str) -> None:
        """A message; over HTTP and CoAP with its answer, which is an error: nobody answers but the gateway."""
        path = f"kp1/app_v1/bcx/{token}/json"
        if kind == "http":
            await self._http.post(f"http://{HOST}:{gateway.http_port}/{path}", content=b"12")
        elif kind == "coap":
            message = aiocoap.Message(
                code=aiocoap.POST, uri=f"coap://{HOST}:{gateway.coap_port}/{path}", payload=b"12"
            )
            await self._coap.request(message).response
        else:
            self._udp.data(path, b"12")


@pytest.fixture
async def devices(quick_gateway: GatewayProcess) -> AsyncIterator[Devices]:
    coap = await aiocoap.Context.create_client_context(transports=["simple6"])
    async with httpx.AsyncClient(timeout=60) as http, kpudp_client(quick_gateway.udp_port) as udp:
        yield Devices(http, coap, udp)
    await coap.shutdown()


@pytest.mark.parametrize("kind", ["http", "coap", "udp"])
async def test_without_a_connection_it_is_connected_until_it_is_idle(
    quick_gateway: GatewayProcess, cluster: Cluster, devices: Devices, kind: str, new_token: NewToken
) -> None:
    token = new_token()
    for number in range(2):
        # The second time over the same connection, by a route that is known.
        await devices.speak(quick_gateway, cluster, kind, token)
        await comes(cluster, token, 2 * number + 1, "connected")
        await comes(cluster, token, 2 * number + 2, "disconnected")
    event = await cluster.connectivity("disconnected", token)
    assert event["endpoints"][token] == "app_v1"
    assert event["originatorReplicaId"] == REPLICA


async def test_two_connections_of_one_endpoint(
    quick_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """It is connected until the last one ends."""
    token, other = new_token(), new_token()
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(mqtt_client(quick_gateway.mqtt_port)) for _ in range(2)
        ]
        for number, peer in enumerate((first, second)):
            await peer.send(Publish(f"kp1/app_v1/dcx/{token}/json", b""))
            await cluster.next_requests(1, after=number)
        await first.send(Disconnect())
        await first.until_closed()
        # An event of another endpoint that comes later shows that there was none of this one before.
        await second.send(Publish(f"kp1/app_v1/dcx/{other}/json", b""))
        await comes(cluster, other, 1, "connected")
        assert history(cluster, token) == ["connected"]
    await comes(cluster, token, 2, "disconnected")


async def test_one_event_for_all_endpoints_of_a_client_that_closes(
    quick_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    tokens = [new_token() for _ in range(50)]
    async with mqtt_client(quick_gateway.mqtt_port) as peer:
        await peer.send(*(Publish(f"kp1/app_v1/dcx/{token}/json", b"") for token in tokens))
        await cluster.next_requests(50)
    event = await cluster.connectivity("disconnected", tokens[0])
    assert set(tokens) <= set(event["endpoints"])


def traffic(cluster: Cluster) -> Counter[tuple[str, str, str, str]]:
    """All that was reported: by tenant, application, endpoint and what it is."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    for report in cluster.reports:
        assert report["originatorReplicaId"] == REPLICA
        assert report["timeout"] == 0
        for tenant, applications in report["tenantTrafficStats"].items():
            for application, endpoints in applications.items():
                for endpoint, stat in endpoints.items():
                    found.update({(tenant, application, endpoint, name): stat[name] for name in STATISTICS})
    return found


def row(cluster: Cluster, token: str) -> list[int]:
    """What was reported of an endpoint, in the order of the schema."""
    found = traffic(cluster)
    return [found["tenant-1", "app", token, name] for name in STATISTICS]


async def answered(peer: MqttPeer, cluster: Cluster, token: str, number: int) -> None:
    """A request of five bytes and its answer of three."""
    await peer.send(Publish(f"kp1/app_v1/dcx/{token}/json/{number}", b"12345"))
    (request,) = await cluster.next_requests(1, after=number)
    await cluster.answer(request, b"abc")
    await peer.expect(Publish)


async def test_traffic_of_a_connection_that_stays_and_of_one_that_has_gone(
    quick_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token, gone = new_token(), new_token()
    async with mqtt_client(quick_gateway.mqtt_port) as peer:
        for number in range(4):
            await answered(peer, cluster, token, number)
        await until(lambda: row(cluster, token) == [20, 12, 4, 4], "a report")
        await answered(peer, cluster, token, 4)
        await cluster.push(token, b"push")
        await peer.expect(Publish)
        await until(lambda: row(cluster, token) == [25, 19, 5, 6], "another report")
    async with mqtt_client(quick_gateway.mqtt_port) as peer:
        await answered(peer, cluster, gone, 5)
    await until(lambda: row(cluster, gone) == [5, 3, 1, 1], "a report of what is gone")
    times = [(report["timeFrom"], report["timeTo"]) for report in cluster.reports]
    assert all(start < end for start, end in times)
    assert all(earlier <= start for (_, earlier), (start, _) in itertools.pairwise(times))


@pytest.mark.parametrize("kind", ["http", "coap", "udp"])
async def test_traffic_over(
    quick_gateway: GatewayProcess, cluster: Cluster, devices: Devices, kind: str, new_token: NewToken
) -> None:
    token = new_token()
    for _ in range(3):
        await devices.speak(quick_gateway, cluster, kind, token)
    await until(lambda: row(cluster, token)[0] == 6, "a report")
    assert row(cluster, token) == [6, 0, 3, 0]


async def test_the_end_reports_what_is_left(nats_server: NatsServer, new_token: NewToken) -> None:
    """And that nobody is connected through this replica any more."""
    token, other = new_token(), new_token()
    changes = {"kaa": {"kpc": {"events": {"traffic-period": 3600}}}}
    async with Cluster(nats_server.url, "dcx") as cluster, AsyncExitStack() as stack:
        with GatewayProcess(nats_server.url, changes) as gateway:
            peer = await stack.enter_async_context(mqtt_client(gateway.mqtt_port))
            await peer.send(Publish(f"kp1/app_v1/dcx/{token}/json", b"123"))
            async with httpx.AsyncClient(timeout=60) as http:
                await http.post(
                    f"http://{HOST}:{gateway.http_port}/kp1/app_v1/bcx/{other}/json", content=b"1"
                )
            await comes(cluster, token, 1, "connected")
            await comes(cluster, other, 1, "connected")
            assert cluster.reports == []
        await comes(cluster, token, 2, "disconnected")
        await comes(cluster, other, 2, "disconnected")
        await until(lambda: bool(cluster.reports), "a report")
        (report,) = cluster.reports
        assert {token, other} == set(report["tenantTrafficStats"][""]["app"])


async def test_nothing_is_reported_when_that_is_off(nats_server: NatsServer, new_token: NewToken) -> None:
    token = new_token()
    changes = {"kaa": {"kpc": {"events": {"traffic-period": 0, "idle-timeout": 0}}}}
    async with Cluster(nats_server.url, "dcx") as cluster:
        with GatewayProcess(nats_server.url, changes) as gateway:
            async with httpx.AsyncClient(timeout=60) as http:
                await http.post(
                    f"http://{HOST}:{gateway.http_port}/kp1/app_v1/bcx/{token}/json", content=b"1"
                )
        await flush(cluster.nats)
        assert (cluster.reports, cluster.events) == ([], [])
