"""From NATS to an MQTT device: answers, pushes, errors, and what becomes of those that nobody can have."""

import json
import time
from collections.abc import AsyncIterator, Callable

import pytest
from kaa_bench.mqtt_packets import Puback, Publish, Pubrec

from tests.support.cluster import TO_INSTANCE, TO_REPLICA, Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import MqttPeer, mqtt_client
from tests.support.nats import NatsServer

NewToken = Callable[[], str]


@pytest.fixture
async def cluster(shared_nats: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(shared_nats.url, "dcx", "unaware") as cluster:
        yield cluster


async def introduce(device: MqttPeer, cluster: Cluster, token: str) -> None:
    """Let a device speak for an endpoint."""
    await device.subscribe(f"kp1/app_v1/dcx/{token}/none")
    await cluster.connectivity("connected", token)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_answers_and_errors_come_at_the_qos_of_the_request_or_of_the_subscription(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, qos: int
) -> None:
    """At the lower one, if a subscription matches (3.8.4)."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.subscribe("#", qos=2 - qos)
        await device.send(
            Publish(f"{topic}/1", b"", qos, 1 if qos else 0), Publish(f"{topic}/2", b"", qos, 2 if qos else 0)
        )
        if qos:
            kind = Puback if qos == 1 else Pubrec
            assert [await device.receive(), await device.receive()] == [kind(1), kind(2)]
        first, second = await cluster.next_requests(2)
        await cluster.answer(first, b"good")
        await cluster.answer(second, None, statusCode=500, reasonPhrase="Bad")
        status, error = await device.expect(Publish), await device.expect(Publish)
    expected = min(qos, 2 - qos)
    assert (status.topic, status.payload, status.qos) == (f"{topic}/1/status", b"good", expected)
    assert (error.topic, error.qos) == (f"{topic}/2/error", expected)
    assert json.loads(error.payload) == {"statusCode": 500, "reasonPhrase": "Bad"}


async def test_pushes_come_at_the_highest_qos_subscribed(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    topic = f"kp1/app_v1/dcx/{token}"
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await introduce(device, cluster, token)
        await device.subscribe(f"{topic}/+/status", qos=1)
        await device.subscribe(f"{topic}/two/#", qos=2)
        await device.subscribe("#", qos=0)
        for path in ("/one", "/two", "/zero/levels"):
            await cluster.push(token, resourcePath=path)
        received = [await device.expect(Publish) for _ in range(3)]
    assert [(packet.topic, packet.qos) for packet in received] == [
        (f"{topic}/one/status", 1),
        (f"{topic}/two/status", 2),
        (f"{topic}/zero/levels/status", 0),
    ]


async def test_pushes_arrive_on_the_instance_and_the_replica_subject(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await introduce(device, cluster, token)
        await cluster.push(token, b"to all", subject=TO_INSTANCE)
        await cluster.push(token, b"to you", subject=TO_REPLICA)
        assert [(await device.expect(Publish)).payload for _ in range(2)] == [b"to all", b"to you"]


async def test_a_push_without_application_version_uses_that_of_the_endpoint(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await introduce(device, cluster, token)
        await cluster.push(token, b"{}", appVersionName=None, resourcePath="json")
        assert await device.expect(Publish) == Publish(f"kp1/app_v1/dcx/{token}/json/status", b"{}")


async def test_an_endpoint_on_two_connections_gets_pushes_on_both(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port) as one, mqtt_client(shared_gateway.mqtt_port) as other:
        for number, device in enumerate((one, other), 1):
            await device.send(Publish(f"kp1/app_v1/dcx/{token}/json/1", b"[]"))
            await cluster.next_requests(number)
        first, second = await cluster.next_requests(2)
        await cluster.push(token, b"both")
        for device in (one, other):
            assert (await device.expect(Publish)).payload == b"both"
        for request, device in ((first, one), (second, other)):
            await cluster.answer(request)
            assert (await device.until_pingresp())[0].topic.endswith("/1/status")  # type: ignore[union-attr]
            assert await (other if device is one else one).until_pingresp() == []


async def test_an_endpoint_unaware_extension_answers_the_connection_that_asked(
    shared_gateway: GatewayProcess, cluster: Cluster
) -> None:
    async with mqtt_client(shared_gateway.mqtt_port) as asker, mqtt_client(shared_gateway.mqtt_port) as other:
        await asker.send(Publish("kp1/app_v1/unaware/register/3", b"?"))
        request = await cluster.request()
        assert request.fields["endpointId"] is None
        await cluster.answer(request, b"!")
        assert await asker.expect(Publish) == Publish("kp1/app_v1/unaware/register/3/status", b"!")
        assert await other.until_pingresp() == []


@pytest.mark.parametrize(
    ("status", "phrase", "suffix", "payload"),
    [
        (200, None, "status", b"data"),
        (204, None, "status", b"data"),
        (299, "Fine", "status", b"data"),
        (199, "Low", "error", b'{"statusCode":199,"reasonPhrase":"Low"}'),
        (300, None, "error", b'{"statusCode":300,"reasonPhrase":"Multiple Choices"}'),
        (404, "", "error", b'{"statusCode":404,"reasonPhrase":"Not Found"}'),
        (499, None, "error", b'{"statusCode":499,"reasonPhrase":"Error"}'),
        (500, 'quote " and ю', "error", '{"statusCode":500,"reasonPhrase":"quote \\" and ю"}'.encode()),
        (-1, None, "error", b'{"statusCode":-1,"reasonPhrase":"Error"}'),
    ],
)
async def test_2xx_is_status_and_everything_else_error(
    shared_gateway: GatewayProcess,
    cluster: Cluster,
    new_token: NewToken,
    status: int,
    phrase: str | None,
    suffix: str,
    payload: bytes,
) -> None:
    """An error's payload is UTF-8 JSON of status code and reason phrase, and nothing else."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json/1"
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish(topic, b""))
        await cluster.answer(await cluster.request(), b"data", statusCode=status, reasonPhrase=phrase)
        assert await device.expect(Publish) == Publish(f"{topic}/{suffix}", payload)


async def test_no_replica_of_the_extension_is_503_at_once(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """Nobody serves tsx here. A request without ID at QoS 0 has nobody who waits for an answer."""
    topic = f"kp1/app_v1/tsx/{new_token()}"
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(
            Publish(topic, b""),
            Publish(f"{topic}/1", b""),
            Publish(f"{topic}/2", b"", 1, 2),
            Publish(topic, b"", 1, 3),
        )
        received = [await device.receive() for _ in range(5)]
        assert await device.until_pingresp() == []
    published = [packet for packet in received if isinstance(packet, Publish)]
    assert [packet for packet in received if packet not in published] == [Puback(2), Puback(3)]
    assert [(packet.topic, packet.qos) for packet in published] == [
        (f"{topic}/1/error", 0),
        (f"{topic}/2/error", 1),
        (f"{topic}/error", 1),
    ]
    for packet in published:
        assert json.loads(packet.payload) == {
            "statusCode": 503,
            "reasonPhrase": "No replica of the extension is running",
        }


async def test_what_cannot_be_delivered_is_dropped_and_counted(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """And nothing of it reaches a device, which gets what comes behind it."""
    token = new_token()
    now = time.time_ns() // 1_000_000
    before = shared_gateway.metrics()
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await introduce(device, cluster, token)
        await cluster.push(new_token())
        await cluster.push(None)
        await cluster.push(token, timestamp=now - 2000, timeout=1000)
        await cluster.push(token, extensionInstanceName=None)
        await cluster.push(token, extensionInstanceName="dc#")
        await cluster.push(token, resourcePath="/a/+")
        await cluster.push(token, resourcePath="/a\x00b")
        await cluster.push(token, resourcePath="/" + "x" * 65535)
        await cluster.nats.publish(TO_INSTANCE, b"")
        await cluster.nats.publish(TO_REPLICA, b"\xff" * 40)
        await cluster.push(token, b"end", timestamp=now, timeout=3_600_000)
        assert await device.expect(Publish) == Publish(f"kp1/app_v1/dcx/{token}/json/status", b"end")
    after = shared_gateway.metrics()
    dropped = {
        name[2]: after[name] - before.get(name, 0)
        for name in after
        if name[:2] == ("events", "dropped") and after[name] != before.get(name, 0)
    }
    assert dropped.pop("unknown_endpoint") == 2
    assert dropped.pop("expired") == 1
    assert dropped.pop("no_topic") == 5
    assert sum(dropped.values()) == 2, dropped


async def test_an_answer_that_names_another_endpoint_reaches_neither(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """The correlation ID of one device's request does not make it see what is for another's endpoint."""
    mine, yours = new_token(), new_token()
    async with mqtt_client(shared_gateway.mqtt_port) as me, mqtt_client(shared_gateway.mqtt_port) as you:
        await introduce(you, cluster, yours)
        await me.send(Publish(f"kp1/app_v1/dcx/{mine}/json/1", b""))
        await cluster.answer(await cluster.request(), b"secret", endpointId=yours)
        # As a push it is for the endpoint that it names.
        assert await you.expect(Publish) == Publish(f"kp1/app_v1/dcx/{yours}/json/1/status", b"secret")
        assert await me.until_pingresp() == []


@pytest.mark.parametrize(
    "correlation_id",
    ["", "x", "3cf060d4-e40d-48c0-a2ad-ad0d1207f21f", "00000000-0000-8000-8000-000000000000"],
)
async def test_a_correlation_id_that_is_not_ours_falls_back_to_the_endpoint(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, correlation_id: str
) -> None:
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish(f"kp1/app_v1/dcx/{token}/json/1", b""))
        await cluster.answer(await cluster.request(), b"ok", correlationId=correlation_id)
        assert await device.expect(Publish) == Publish(f"kp1/app_v1/dcx/{token}/json/1/status", b"ok")
