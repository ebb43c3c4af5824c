"""Which endpoints a client speaks for: static tokens over MQTT, and the connectivity events of 9/ELCE."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from kaa_bench.mqtt_packets import Disconnect, Puback, Publish

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import REPLICA, GatewayProcess
from tests.support.mqtt import mqtt_client
from tests.support.nats import NatsServer

NewToken = Callable[[], str]

TOKENS = {
    "app_v1": {"good": "endpoint-1", "alias": "endpoint-1", "42": "endpoint-2"},
    "app_v2": {"good": "endpoint-3"},
}


@pytest.fixture(scope="module")
def static_gateway(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    """A gateway that knows TOKENS, a service instance of its own beside `shared_gateway`."""
    instance = {"service": {"instance": {"name": "kpc-static", "replica": {"id": "static"}}}}
    with GatewayProcess(shared_nats.url, instance, tokens=TOKENS) as process:
        yield process


@pytest.fixture
async def cluster(shared_nats: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(shared_nats.url, "dcx", "echo", "unaware") as cluster:
        yield cluster


# Identity


async def test_a_token_means_the_endpoint_that_the_provider_says(
    static_gateway: GatewayProcess, cluster: Cluster
) -> None:
    async with mqtt_client(static_gateway.mqtt_port) as device:
        for topic, endpoint_id in (
            ("kp1/app_v1/dcx/good/json/1", "endpoint-1"),
            ("kp1/app_v1/dcx/42/json/1", "endpoint-2"),
            ("kp1/app_v2/echo/good/json/1", "endpoint-3"),
        ):
            count = len(cluster.requests)
            await device.send(Publish(topic, b""))
            (request,) = await cluster.next_requests(1, after=count)
            assert request.fields["endpointId"] == endpoint_id
            await cluster.answer(request, b"answer")
            assert await device.expect(Publish) == Publish(f"{topic}/status", b"answer")


async def test_two_tokens_of_one_endpoint_are_answered_each_under_its_own(
    static_gateway: GatewayProcess, cluster: Cluster
) -> None:
    """The extension knows only the endpoint: which token a request came under is the gateway's to remember."""
    async with mqtt_client(static_gateway.mqtt_port) as device:
        topics = [
            f"kp1/app_v1/dcx/{token}/json/{n}" for n, token in enumerate(("good", "alias", "good", "alias"))
        ]
        await device.send(*(Publish(topic, b"") for topic in topics))
        requests = await cluster.next_requests(4, after=0)
        assert {request.fields["endpointId"] for request in requests} == {"endpoint-1"}
        for request in requests:
            await cluster.answer(request, b"answer")
        answered = [await device.expect(Publish) for _ in topics]
        assert sorted(answer.topic for answer in answered) == sorted(f"{topic}/status" for topic in topics)


async def test_an_unknown_token_is_401_and_the_client_stays(
    static_gateway: GatewayProcess, cluster: Cluster
) -> None:
    before = static_gateway.count("events", "refused", "token_rejected")
    async with mqtt_client(static_gateway.mqtt_port) as device:
        topic = "kp1/app_v1/dcx/stolen/json"
        await device.send(Publish(f"{topic}/1", b"first"), Publish(f"{topic}/2", b"second", 1, 2))
        received = [await device.receive() for _ in range(3)]
        errors = [packet for packet in received if isinstance(packet, Publish)]
        assert [(packet.topic, packet.qos) for packet in errors] == [
            (f"{topic}/1/error", 0),
            (f"{topic}/2/error", 1),
        ]
        for error in errors:
            assert json.loads(error.payload) == {"statusCode": 401, "reasonPhrase": "Unauthorized"}
        assert Puback(2) in received
        await device.send(Publish("kp1/app_v1/dcx/good/json/1", b"mine"))
        assert (await cluster.request()).fields["payload"] == b"mine"
    assert static_gateway.count("events", "refused", "token_rejected") == before + 2


async def test_a_rejected_token_in_a_filter_identifies_nobody(
    static_gateway: GatewayProcess, cluster: Cluster
) -> None:
    async with mqtt_client(static_gateway.mqtt_port) as device:
        assert await device.subscribe("kp1/app_v1/dcx/endpoint-1/#", "kp1/app_v1/dcx/stolen/#", qos=1) == (
            1,
            1,
        )
        await device.send(Publish("kp1/app_v1/dcx/42/json", b"", 1, 1))
        assert await device.expect(Puback) == Puback(1)
        await cluster.push(
            "endpoint-1", b"not for you", subject="kaa.v1.service.kpc-static.esp.ExtensionData"
        )
        await cluster.push("endpoint-2", b"for you", subject="kaa.v1.service.kpc-static.esp.ExtensionData")
        assert (await device.expect(Publish)).payload == b"for you"


async def test_an_answer_comes_under_the_token_that_the_device_used(
    static_gateway: GatewayProcess, cluster: Cluster
) -> None:
    """Two tokens of one endpoint, on one connection."""
    async with mqtt_client(static_gateway.mqtt_port) as device:
        for token in ("good", "alias", "good"):
            count = len(cluster.requests)
            await device.send(Publish(f"kp1/app_v1/dcx/{token}/json/1", b""))
            (request,) = await cluster.next_requests(1, after=count)
            assert request.fields["endpointId"] == "endpoint-1"
            await cluster.answer(request)
            assert (await device.expect(Publish)).topic == f"kp1/app_v1/dcx/{token}/json/1/status"


# Connectivity


async def test_one_event_for_all_endpoints_of_a_closing_client(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    tokens = [new_token() for _ in range(300)]
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(*(Publish(f"kp1/app_v1/dcx/{token}/json", b"") for token in tokens))
        await device.send(Publish(f"kp1/app_v2/echo/{tokens[0]}-2/json", b""))
        await cluster.next_requests(301)
        for token in (*tokens, f"{tokens[0]}-2"):
            await cluster.connectivity("connected", token)
        await device.send(Disconnect())
        assert await device.until_closed() == []
    event = await cluster.connectivity("disconnected", tokens[0])
    assert event["endpoints"] == {**dict.fromkeys(tokens, "app_v1"), f"{tokens[0]}-2": "app_v2"}
    assert event["originatorReplicaId"] == REPLICA
    assert event["timeout"] == 0
    assert event["timestamp"] > 1_600_000_000_000
    assert [kind for kind, _ in cluster.events].count("disconnected") == 1


async def test_the_last_connection_of_an_endpoint_disconnects_it(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token, last = new_token(), new_token()
    port = shared_gateway.mqtt_port
    async with mqtt_client(port) as one, mqtt_client(port) as other, mqtt_client(port) as third:
        for device in (one, other):
            await device.send(Publish(f"kp1/app_v1/dcx/{token}/json", b"", 1, 1))
            await device.expect(Puback)
        await one.abort()
        await third.send(Publish(f"kp1/app_v1/dcx/{last}/json", b""))
        await cluster.connectivity("connected", last)
        assert [kind for kind, fields in cluster.events if token in fields["endpoints"]] == ["connected"]
        await other.abort()
        await cluster.connectivity("disconnected", token)
    await cluster.connectivity("disconnected", last)
    assert [kind for kind, fields in cluster.events if token in fields["endpoints"]] == [
        "connected",
        "disconnected",
    ]


async def test_endpoint_unaware_extensions_connect_nobody(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(
            Publish("kp1/app_v1/unaware/json", b""), Publish(f"kp1/app_v1/dcx/{token}/json", b"")
        )
        assert (await cluster.connectivity("connected", token))["endpoints"] == {token: "app_v1"}


async def test_a_gateway_that_stops_disconnects_its_endpoints(
    shared_nats: NatsServer, cluster: Cluster, new_token: NewToken
) -> None:
    tokens = [new_token() for _ in range(3)]
    with GatewayProcess(shared_nats.url) as gateway:
        async with mqtt_client(gateway.mqtt_port) as one, mqtt_client(gateway.mqtt_port) as other:
            await one.send(*(Publish(f"kp1/app_v1/dcx/{token}/json", b"") for token in tokens[:2]))
            await other.send(Publish(f"kp1/app_v1/dcx/{tokens[2]}/json", b""))
            await cluster.next_requests(3)
            assert await asyncio.to_thread(gateway.stop) == 0
            assert await one.until_closed() == await other.until_closed() == []
    await until(lambda: any(kind == "disconnected" for kind, _ in cluster.events), "a disconnected event")
    event = await cluster.connectivity("disconnected", tokens[0])
    assert event["endpoints"] == dict.fromkeys(tokens, "app_v1")
