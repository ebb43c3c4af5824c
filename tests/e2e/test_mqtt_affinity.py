"""Session affinity of 4/ESP: the reply-to of an ExtensionData names the replica that gets what follows."""

from collections.abc import AsyncIterator, Callable

import pytest
from kaa_bench.mqtt_packets import Puback, Publish
from kaa_ext import Extension, Request
from kaa_gateway.bus import subjects

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import MqttPeer, mqtt_client
from tests.support.nats import NatsServer

NewToken = Callable[[], str]

TO_ALL = subjects.service("dcx", "esp", subjects.CLIENT_DATA)
TO_ONE = subjects.replica("dcx-one", "esp", subjects.CLIENT_DATA)


@pytest.fixture
async def cluster(shared_nats: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(shared_nats.url, "dcx", "echo") as cluster:
        yield cluster


async def ask(device: MqttPeer, cluster: Cluster, topic: str, *, reply: str = "") -> str:
    """Send a request, answer it with a reply-to, and return the subject that it went to."""
    count = len(cluster.requests)
    await device.send(Publish(topic, b""))
    (request,) = await cluster.next_requests(1, after=count)
    assert request.reply
    await cluster.send(
        request.reply,
        reply=reply,
        correlationId=request.fields["correlationId"],
        endpointId=request.fields["endpointId"],
        resourcePath=request.fields["resourcePath"],
        requestId=request.fields["requestId"],
    )
    assert (await device.expect(Publish)).topic == f"{topic}/status"
    return request.subject


@pytest.mark.parametrize("message_type", ["ClientData", "ExtensionData"])
async def test_a_reply_to_redirects_the_endpoint_and_nobody_else(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, message_type: str
) -> None:
    """Only the replica subject counts; its last token is replaced (3/ISM)."""
    token = new_token()
    topic = f"kp1/app_v1/dcx/{token}/json/1"
    await cluster.subscribe(TO_ONE)
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        reply = subjects.with_message_type(TO_ONE, message_type)
        assert await ask(device, cluster, topic, reply=reply) == TO_ALL
        assert await ask(device, cluster, topic) == TO_ONE
        assert await ask(device, cluster, f"kp1/app_v1/dcx/{token}/other/path/2") == TO_ONE
        assert await ask(device, cluster, f"kp1/app_v1/dcx/{new_token()}/json/1") == TO_ALL
        await device.send(Publish(f"kp1/app_v1/echo/{token}/json/1", b""))
        await until(lambda: cluster.requests[-1].subject.endswith(".echo.esp.ClientData"), "the echo request")
    async with mqtt_client(shared_gateway.mqtt_port) as another_connection:
        assert await ask(another_connection, cluster, topic) == TO_ONE


@pytest.mark.parametrize(
    "reply",
    [
        "_INBOX.abc",
        "kaa.v1.service.dcx.esp.ClientData",
        "kaa.v1.replica.a.b.esp.ClientData",
        "kaa.v1.replica.dcx-one.cip.command",
        "kaa.v1.replica..esp.ClientData",
        "$JS.API.STREAM.DELETE.x",
    ],
)
async def test_a_reply_to_that_is_no_replica_subject_redirects_nothing(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, reply: str
) -> None:
    topic = f"kp1/app_v1/dcx/{new_token()}/json/1"
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await ask(device, cluster, topic, reply=reply)
        assert await ask(device, cluster, topic) == TO_ALL


async def test_a_replica_that_is_gone_loses_no_message(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """The endpoint returns to the instance-wide subject, with everything that was on its way, once each."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await ask(device, cluster, f"{topic}/1", reply=subjects.replica("gone", "esp", subjects.CLIENT_DATA))
        await device.send(*(Publish(topic, b"%d" % n, 1, n) for n in range(1, 101)))
        assert [await device.expect(Puback) for _ in range(100)] == [Puback(n) for n in range(1, 101)]
        requests = await cluster.next_requests(100, after=1)
        assert {request.subject for request in requests} == {TO_ALL}
        assert sorted(int(request.fields["payload"]) for request in requests) == list(range(1, 101))
        assert await ask(device, cluster, f"{topic}/2") == TO_ALL
    assert len(cluster.requests) == 102


async def test_between_replicas_of_an_extension(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, new_token: NewToken
) -> None:
    """The SDK asks for affinity: one replica keeps an endpoint until it stops, then the other has it."""
    handled: list[str] = []

    def replica(name: str) -> Extension:
        extension = Extension("cmx", nats_urls=[shared_nats.url], replica_id=name, affinity=True)

        @extension.handler("*")
        def handle(request: Request) -> None:
            handled.append(name)

        return extension

    topic = f"kp1/app_v1/cmx/{new_token()}/config/json/1"
    replicas = {name: replica(name) for name in ("cmx-a", "cmx-b")}
    for extension in replicas.values():
        await extension.start()
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        for _ in range(10):
            await device.send(Publish(topic, b""))
            assert (await device.expect(Publish)).topic == f"{topic}/status"
        (first,) = set(handled)
        await replicas.pop(first).stop()
        for _ in range(10):
            await device.send(Publish(topic, b""))
            assert (await device.expect(Publish)).topic == f"{topic}/status"
    (second,) = replicas
    assert handled == [first] * 10 + [second] * 10
    await replicas[second].stop()
