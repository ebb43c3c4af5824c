"""How real Kaa clients behave: one test for each habit that Kaa's own clients, examples and documentation show.

Those of HTTP clients are in test_http_*.py, except the two that are the resource path's.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from kaa_bench.mqtt_packets import (
    Connack,
    Connect,
    Disconnect,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from kaa_ext import Extension
from kaa_ext.services import dcx

from tests.support.cluster import TO_REPLICA, Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import MqttPeer, mqtt_client, mqtt_peer
from tests.support.nats import HOST, NatsServer

NewToken = Callable[[], str]

INT_MAX = 2**31 - 1
"""The largest Avro int, and so the largest request ID."""


@pytest.fixture
async def cluster(shared_nats: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(shared_nats.url, "bcx", "cmx", "dcx", "tsx") as cluster:
        yield cluster


async def received(device: MqttPeer, cluster: Cluster, token: str) -> list[Publish]:
    """All that the gateway has sent to the device: a push behind it, through the same connections, marks the end."""
    await cluster.push(token, b"", resourcePath="/end")
    return await device.publishes_until(f"kp1/app_v1/dcx/{token}/end/status")


# Delivery needs no subscription


async def test_a_device_that_never_subscribes_gets_status_error_and_pushes(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    topic = f"kp1/app_v1/dcx/{token}/json"
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish(f"{topic}/1", b"[]"), Publish(f"{topic}/2", b"["))
        good, bad = await cluster.next_requests(2)
        await cluster.answer(good, b"")
        await cluster.answer(bad, None, statusCode=400, reasonPhrase="Not JSON")
        await cluster.push(token, b"{}", extensionInstanceName="cmx", resourcePath="/config/json")
        await cluster.push(token, b"again", subject=TO_REPLICA)
        assert await received(device, cluster, token) == [
            Publish(f"{topic}/1/status", b""),
            Publish(f"{topic}/2/error", b'{"statusCode":400,"reasonPhrase":"Not JSON"}'),
            Publish(f"kp1/app_v1/cmx/{token}/config/json/status", b"{}"),
            Publish(f"{topic}/status", b"again"),
        ]


FILTERS = ["#", "+/+/+/+/#", "kp1/#", "kp1/+/+/+/json/#", "kp1/app_v1/dcx/TOKEN/json/+/status"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_device_that_subscribes_with_wildcards_gets_each_message_once(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, when: str
) -> None:
    token = new_token()
    topic = f"kp1/app_v1/dcx/{token}/json"
    filters = [name.replace("TOKEN", token) for name in FILTERS]
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        if when == "before":
            assert await device.subscribe(*filters, qos=1) == (1,) * len(filters)
        await device.send(Publish(f"{topic}/1", b"[]"), Publish(f"{topic}/2", b"[]"))
        first, second = await cluster.next_requests(2)
        if when == "after":
            assert await device.subscribe(*filters, qos=1) == (1,) * len(filters)
        await cluster.answer(first)
        await cluster.answer(second, None, statusCode=500)
        await cluster.push(token, b"push")
        packets = await received(device, cluster, token)
    assert [(packet.topic, packet.payload) for packet in packets] == [
        (f"{topic}/1/status", b""),
        (f"{topic}/2/error", b'{"statusCode":500,"reasonPhrase":"Internal Server Error"}'),
        (f"{topic}/status", b"push"),
    ]


async def test_filters_that_do_not_match_what_is_handled_and_unsubscribing_change_nothing(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    topic = f"kp1/app_v1/cmx/{token}/config/json"
    filters = (f"kp1/app_v1/dcx/{token}/other", f"{topic}/status/#", "something/else", "/", "+")
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        assert await device.subscribe(*filters) == (0,) * len(filters)
        await device.send(Unsubscribe(2, (*filters, "never/subscribed", "#")))
        assert await device.expect(Unsuback) == Unsuback(2)
        await device.send(Publish(f"{topic}/5", b"{}"))
        await cluster.answer(await cluster.request(), b"{}")
        assert await received(device, cluster, token) == [Publish(f"{topic}/5/status", b"{}")]


async def test_everything_shows_a_client_only_its_own_endpoints(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """Two clients that speak for many endpoints each, and one that speaks for none, all subscribed to kp1/#."""
    tokens = [[new_token() for _ in range(20)] for _ in range(2)]
    port = shared_gateway.mqtt_port
    async with mqtt_client(port, "a") as one, mqtt_client(port, "a") as other, mqtt_client(port) as stranger:
        for device in (one, other, stranger):
            await device.subscribe("kp1/#", "#")
        for device, own in zip((one, other), tokens, strict=True):
            await device.send(*(Publish(f"kp1/app_v1/dcx/{token}/json/1", b"[]") for token in own))
        for request in await cluster.next_requests(40):
            await cluster.answer(request)
            await cluster.push(request.fields["endpointId"], b"push")
        for device, own in zip((one, other), tokens, strict=True):
            packets = await received(device, cluster, own[0])
            assert sorted(packet.topic for packet in packets) == sorted(
                f"kp1/app_v1/dcx/{token}/json{suffix}" for token in own for suffix in ("/1/status", "/status")
            )
        assert await stranger.until_pingresp() == []


# A SUBSCRIBE alone identifies an endpoint


@pytest.mark.parametrize(
    "topic_filter",
    [
        "kp1/app_v1/cmx/TOKEN/config/json/status/#",
        "kp1/app_v1/cmx/TOKEN/+",
        "kp1/app_v1/cmx/TOKEN/#",
        "kp1/app_v1/cmx/TOKEN",
        "kp1/app_v1/+/TOKEN/#",
    ],
)
async def test_subscribing_alone_identifies_the_endpoint(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, topic_filter: str
) -> None:
    """Devices that only wait for pushes: `connected` is emitted, and pushes arrive."""
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        assert await device.subscribe(topic_filter.replace("TOKEN", token)) == (0,)
        event = await cluster.connectivity("connected", token)
        assert event["endpoints"][token] == "app_v1"
        await cluster.push(token, b"{}", extensionInstanceName="cmx", resourcePath="/config/json")
        assert await received(device, cluster, token) == [
            Publish(f"kp1/app_v1/cmx/{token}/config/json/status", b"{}")
        ]


@pytest.mark.parametrize(
    "topic_filter",
    [
        "kp1/app_v1/unaware/TOKEN/#",
        "kp1/unknown/dcx/TOKEN/#",
        "kp1/app_v2/dcx/TOKEN/#",
        "kp1/+/dcx/TOKEN/#",
        "other/app_v1/dcx/TOKEN",
    ],
)
async def test_a_filter_that_is_no_resource_path_of_an_endpoint_identifies_nobody(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, topic_filter: str
) -> None:
    """The second filter's endpoint is resolved behind that of the first, so its event shows that none was before."""
    token, last = new_token(), new_token()
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        assert await device.subscribe(topic_filter.replace("TOKEN", token), f"kp1/app_v1/dcx/{last}/#") == (
            0,
            0,
        )
        event = await cluster.connectivity("connected", last)
        assert event["endpoints"] == {last: "app_v1"}


# Before CONNACK


async def test_packets_that_arrive_before_connack_are_kept_in_order(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    publishes = [Publish(f"kp1/app_v1/dcx/{token}/json", b"%d" % n, 1, n) for n in range(1, 51)]
    async with mqtt_peer(shared_gateway.mqtt_port) as device:
        await device.send(Connect("early"), Subscribe(99, ((f"kp1/app_v1/dcx/{token}/#", 1),)), *publishes)
        assert await device.expect(Connack) == Connack(False, 0)
        assert await device.expect(Suback) == Suback(99, (1,))
        assert [await device.expect(Puback) for _ in publishes] == [Puback(n) for n in range(1, 51)]
    requests = await cluster.next_requests(50)
    assert [request.fields["payload"] for request in requests] == [b"%d" % n for n in range(1, 51)]


async def test_a_device_that_sends_everything_at_once_and_leaves_is_heard(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """CONNECT, PUBLISH and DISCONNECT in one segment, then the end of the stream."""
    token = new_token()
    async with mqtt_peer(shared_gateway.mqtt_port) as device:
        await device.send(
            Connect("hasty"), Publish(f"kp1/app_v1/dcx/{token}/json", b"last words"), Disconnect()
        )
        await device.end_output()
        assert await device.until_closed() == [Connack(False, 0)]
    assert (await cluster.request()).fields["payload"] == b"last words"


# Client IDs


@pytest.mark.parametrize("client_id", ["ESP8266Client", ""], ids=["hard-coded", "empty"])
async def test_a_fleet_with_one_client_id_lives_side_by_side(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, client_id: str
) -> None:
    tokens = [new_token() for _ in range(3)]
    port = shared_gateway.mqtt_port
    async with (
        mqtt_client(port, client_id) as a,
        mqtt_client(port, client_id) as b,
        mqtt_client(port, client_id) as c,
    ):
        for device, token in zip((a, b, c), tokens, strict=True):
            await device.send(Publish(f"kp1/app_v1/dcx/{token}/json/1", b"[]"))
        for request in await cluster.next_requests(3):
            await cluster.answer(request)
        for device, token in zip((a, b, c), tokens, strict=True):
            assert await device.expect(Publish) == Publish(f"kp1/app_v1/dcx/{token}/json/1/status", b"")


# Request IDs


async def test_request_id_0_is_answered_like_any_other(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    topic = f"kp1/app_v1/dcx/{new_token()}/json/0"
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish(topic, b"[]"))
        request = await cluster.request()
        assert request.fields["requestId"] == 0
        await cluster.answer(request)
        assert await device.expect(Publish) == Publish(f"{topic}/status", b"")


async def test_request_ids_repeat_while_outstanding(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    topic = f"kp1/app_v1/dcx/{new_token()}/json/7"
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(*(Publish(topic, b"%d" % n) for n in range(10)))
        for request in await cluster.next_requests(10):
            await cluster.answer(request, b"answer " + request.fields["payload"])
        for n in range(10):
            assert await device.expect(Publish) == Publish(f"{topic}/status", b"answer %d" % n)


async def test_a_token_of_digits_is_found_by_position(
    shared_gateway: GatewayProcess, cluster: Cluster
) -> None:
    """Twice each, because the second time the route is cached."""
    expected = [("", None), ("", 5), ("/json", 6), ("/json", None), ("/5", 6)]
    topics = ["1234567", "1234567/5", "1234567/json/6", "1234567/json", "1234567/5/6"]
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(*(Publish(f"kp1/app_v1/dcx/{topic}", b"") for topic in topics * 2))
        requests = await cluster.next_requests(2 * len(topics))
        assert {request.fields["endpointId"] for request in requests} == {"1234567"}
        assert [(r.fields["resourcePath"], r.fields["requestId"]) for r in requests] == expected * 2
        await cluster.answer(requests[1])
        assert await device.expect(Publish) == Publish("kp1/app_v1/dcx/1234567/5/status", b"")


async def test_an_id_beyond_avro_int_is_a_path_level(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish(f"{topic}/{INT_MAX}", b""), Publish(f"{topic}/{INT_MAX + 1}", b""))
        requests = await cluster.next_requests(2)
        assert [(r.fields["resourcePath"], r.fields["requestId"]) for r in requests] == [
            ("/json", INT_MAX),
            (f"/json/{INT_MAX + 1}", None),
        ]
        for request in requests:
            await cluster.answer(request)
        assert await device.expect(Publish) == Publish(f"{topic}/{INT_MAX}/status", b"")
        assert await device.expect(Publish) == Publish(f"{topic}/{INT_MAX + 1}/status", b"")


async def test_without_request_id_what_the_extension_sends_is_forwarded(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    topic = f"kp1/app_v1/bcx/{new_token()}/token"
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish(topic, b""))
        request = await cluster.request()
        assert request.fields["requestId"] is None
        await cluster.answer(request, b"a-token")
        assert await device.expect(Publish) == Publish(f"{topic}/status", b"a-token")


async def test_http_a_trailing_request_id_is_stripped_as_in_mqtt(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    url = f"http://{HOST}:{shared_gateway.http_port}/kp1/app_v1/dcx/{token}/json/23"
    async with httpx.AsyncClient(trust_env=False) as client:
        posting = asyncio.create_task(client.post(url, content=b"[]"))
        request = await cluster.request()
        assert (request.fields["resourcePath"], request.fields["requestId"]) == ("/json", 23)
        await cluster.answer(request, b"ok")
        response = await posting
    assert (response.status_code, response.content) == (200, b"ok")


# Resource paths and payloads


async def test_the_resource_path_may_be_empty_and_the_payload_too(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    topic = f"kp1/app_v1/tsx/{token}"
    async with mqtt_client(shared_gateway.mqtt_port) as device, httpx.AsyncClient(trust_env=False) as client:
        await device.send(Publish(topic, b""), Publish(f"{topic}/3", b""))
        requests = await cluster.next_requests(2)
        url = f"http://{HOST}:{shared_gateway.http_port}/{topic}"
        posting = asyncio.create_task(client.post(url))
        requests += await cluster.next_requests(1, after=2)
        assert [(r.fields["resourcePath"], r.fields["payload"]) for r in requests] == [("", b"")] * 3
        for request in requests:
            await cluster.answer(request, b"time")
        assert await device.expect(Publish) == Publish(f"{topic}/status", b"time")
        assert await device.expect(Publish) == Publish(f"{topic}/3/status", b"time")
        assert (await posting).content == b"time"


async def test_unknown_tails_and_payloads_that_are_not_json_are_passed_on(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    topic = f"kp1/app_v1/dcx/{new_token()}/plain/v2/what/ever"
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish(f"{topic}/1", b"\xff\x00 not JSON"))
        request = await cluster.request()
        assert request.fields["resourcePath"] == "/plain/v2/what/ever"
        assert request.fields["payload"] == b"\xff\x00 not JSON"
        await cluster.answer(request, statusCode=404, reasonPhrase="Unknown resource path")
        answer = await device.expect(Publish)
        assert answer.topic == f"{topic}/1/error"
        assert json.loads(answer.payload) == {"statusCode": 404, "reasonPhrase": "Unknown resource path"}


@pytest.mark.parametrize("payload", [b'{"t": 21.5}', b'[{"t": 21.5}]', b"21.5", b"true"])
async def test_dcx_takes_what_is_not_an_array(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, new_token: NewToken, payload: bytes
) -> None:
    topic = f"kp1/app_v1/dcx/{new_token()}/json/1"
    extension = Extension("dcx", nats_urls=[shared_nats.url])
    dcx.register(extension)
    async with extension, mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish(topic, payload))
        assert (await device.expect(Publish)).topic == f"{topic}/status"


# Roaming


async def test_an_endpoint_roams_between_connections(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """An answer to what was sent over a connection that has ended reaches the endpoint where it is now."""
    token = new_token()
    topic = f"kp1/app_v1/dcx/{token}/json"
    async with mqtt_client(shared_gateway.mqtt_port) as before:
        await before.send(Publish(f"{topic}/1", b"[]"))
        request = await cluster.request()
        await before.send(Disconnect())
        assert await before.until_closed() == []
    await cluster.connectivity("disconnected", token)
    cluster.events.clear()
    async with mqtt_client(shared_gateway.mqtt_port) as after:
        await after.subscribe(f"{topic}/#")
        await cluster.connectivity("connected", token)
        await cluster.answer(request, b"late")
        assert await received(after, cluster, token) == [Publish(f"{topic}/1/status", b"late")]


async def test_one_connection_speaks_for_many_tokens_and_versions(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, new_token: NewToken
) -> None:
    one, two = new_token(), new_token()
    async with (
        Cluster(shared_nats.url, "echo") as echo,
        mqtt_client(shared_gateway.mqtt_port) as device,
    ):
        await device.send(
            Publish(f"kp1/app_v1/echo/{one}/a/1", b"v1"),
            Publish(f"kp1/app_v2/echo/{two}/b/1", b"v2"),
            Publish(f"kp1/app_v2/echo/{one}/c/1", b"v2"),
        )
        requests = await echo.next_requests(3)
        assert [(r.fields["appVersionName"], r.fields["endpointId"]) for r in requests] == [
            ("app_v1", one),
            ("app_v2", two),
            ("app_v2", one),
        ]
        for request in requests:
            await echo.answer(request)
        assert [(await device.expect(Publish)).topic for _ in range(3)] == [
            f"kp1/app_v1/echo/{one}/a/1/status",
            f"kp1/app_v2/echo/{two}/b/1/status",
            f"kp1/app_v2/echo/{one}/c/1/status",
        ]
