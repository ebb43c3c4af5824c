"""Observe: which pushes are notifications, their order and number, how an observation ends, and its bounds."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from kaa_gateway.wire.coap import Message

from tests.support.cluster import Cluster
from tests.support.coap import (
    CON,
    FETCH,
    GET,
    OBSERVE,
    RST,
    CoapClient,
    RunningCoapServer,
    coap_server,
    option,
    uint,
)
from tests.support.esp import until
from tests.support.nats import NatsServer

PATH = "kp1/app_v1/dcx/token/config/json"
RESOURCE = "/config/json"
QUEUED_NOTIFICATIONS_MAX = 16
DAY = 86_400


@pytest.fixture
async def cluster(shared_nats: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(shared_nats.url, "dcx") as cluster:
        yield cluster


@pytest.fixture
async def server(shared_nats: NatsServer) -> AsyncIterator[RunningCoapServer]:
    async with coap_server(
        shared_nats.url, observers_per_peer=2, observers=3, piggyback_delay=3600.0
    ) as server:
        yield server


@pytest.fixture
async def client(server: RunningCoapServer) -> AsyncIterator[CoapClient]:
    async with CoapClient(server.port) as client:
        yield client


async def register(cluster: Cluster, client: CoapClient, path: str = PATH, **changes: Any) -> Message:
    """Register, with a request that the extension answers well; the answer."""
    count = len(cluster.requests)
    status = changes.pop("status", 200)
    client.send(client.request(path, b"", (OBSERVE, b""), **{"method": GET, **changes}))
    (request,) = await cluster.next_requests(1, after=count)
    await cluster.answer(request, b"now", statusCode=status)
    return await client.receive()


async def push(cluster: Cluster, payload: bytes, path: str = RESOURCE, **changes: Any) -> None:
    await cluster.push("token", payload, resourcePath=path, **changes)


@pytest.mark.parametrize("method", [GET, FETCH])
async def test_a_push_is_a_notification(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient, method: int
) -> None:
    answer = await register(cluster, client, method=method)
    assert option(answer, OBSERVE) is not None
    assert server.presence.present == {"token"}
    numbers = [int.from_bytes(option(answer, OBSERVE) or b"", "big")]
    for payload in (b"one", b"two"):
        await push(cluster, payload)
        notification = await client.receive()
        assert (notification.type, notification.code, notification.token) == (CON, 0x45, answer.token)
        assert (notification.payload, option(notification, 12)) == (payload, b"\x32")
        numbers.append(int.from_bytes(option(notification, OBSERVE) or b"", "big"))
        client.acknowledge(notification)
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("/config", {}),
        ("/config/json/more", {}),
        ("/config/json/", {}),
        ("", {}),
        (RESOURCE, {"extensionInstanceName": "echo"}),
    ],
)
async def test_a_push_on_another_resource(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient, path: str, changes: dict[str, Any]
) -> None:
    await register(cluster, client)
    await push(cluster, b"other", path, **changes)
    await until(lambda: server.count("dropped", "no_session") == 1, "the push")
    await push(cluster, b"of any extension", "config/json", extensionInstanceName=None)
    assert (await client.receive()).payload == b"of any extension"


async def test_what_does_not_register(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    assert option(await register(cluster, client, status=404), OBSERVE) is None
    assert option(await register(cluster, client, method=2), OBSERVE) is None
    assert server.tables["observers"] == 0
    assert not server.presence.present


async def test_notifications_wait_for_their_acknowledgement(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    """One is on its way at a time, the others follow in order; beyond the bound, the oldest of them goes."""
    await register(cluster, client)
    for number in range(QUEUED_NOTIFICATIONS_MAX + 3):
        await push(cluster, b"%d" % number)
    await until(lambda: server.count("dropped", "coap_notification_queue_full") == 2, "the bound")
    seen = []
    for _ in range(QUEUED_NOTIFICATIONS_MAX + 1):
        notification = await client.receive()
        assert not client.inbox
        seen.append(int(notification.payload))
        client.acknowledge(notification)
    assert seen == [0, *range(3, QUEUED_NOTIFICATIONS_MAX + 3)]
    assert await client.hears_nothing()
    assert server.tables["transmissions"] == 0


async def test_registering_again_is_one_registration(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    first = await register(cluster, client, token=b"T")
    again = await register(cluster, client, token=b"T")
    assert (option(again, OBSERVE) or b"") > (option(first, OBSERVE) or b"")
    assert server.tables["observers"] == 1
    await register(cluster, client, f"{PATH}/other", token=b"T")
    assert server.tables["observers"] == 1
    await push(cluster, b"other", f"{RESOURCE}/other")
    assert (await client.receive()).token == b"T"


async def test_deregistration(cluster: Cluster, server: RunningCoapServer, client: CoapClient) -> None:
    await register(cluster, client, token=b"T")
    client.send(client.request(PATH, b"", (OBSERVE, uint(1)), method=GET, token=b"T"))
    (request,) = await cluster.next_requests(1, after=1)
    await cluster.answer(request, b"now")
    assert option(await client.receive(), OBSERVE) is None
    assert server.tables["observers"] == 0
    assert not server.presence.present


async def test_a_reset_deregisters(cluster: Cluster, server: RunningCoapServer, client: CoapClient) -> None:
    await register(cluster, client)
    await push(cluster, b"one")
    await push(cluster, b"two")
    client.send(Message(RST, 0, (await client.receive()).message_id))
    await until(lambda: server.tables["observers"] == 0, "the end of the observation")
    assert server.tables["transmissions"] == 0
    assert await client.hears_nothing()


async def test_silence_deregisters(cluster: Cluster, shared_nats: NatsServer) -> None:
    async with coap_server(shared_nats.url, ack_timeout=0.02) as server, CoapClient(server.port) as client:
        await register(cluster, client)
        await push(cluster, b"one")
        await until(lambda: server.tables["observers"] == 0, "the end of the observation")
        assert server.count("closed", "coap_observer_gone") == 1
        assert server.tables["transmissions"] == 0


async def test_an_error_ends_the_observation(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    await register(cluster, client)
    await push(cluster, b"", statusCode=404, reasonPhrase="Gone")
    notification = await client.receive()
    assert (notification.code, notification.payload, option(notification, OBSERVE)) == (0x84, b"Gone", None)
    client.acknowledge(notification)
    await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")
    assert server.tables["observers"] == 0


async def test_observers_are_bounded(cluster: Cluster, server: RunningCoapServer, client: CoapClient) -> None:
    """Of a peer, and of all: beyond it a request is answered, and no more."""
    assert option(await register(cluster, client), OBSERVE) is not None
    assert option(await register(cluster, client), OBSERVE) is not None
    assert option(await register(cluster, client), OBSERVE) is None
    async with CoapClient(server.port) as other:
        assert option(await register(cluster, other), OBSERVE) is not None
        assert option(await register(cluster, other), OBSERVE) is None
    assert server.tables["observers"] == 3
    assert server.count("refused", "coap_too_many_observers") == 2


async def test_an_observer_may_be_silent_for_a_day(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    await register(cluster, client)
    await server.put_forward(DAY - 10)
    assert server.tables["observers"] == 1
    await push(cluster, b"still there")
    assert (await client.receive()).payload == b"still there"
    await server.put_forward(20)
    await until(lambda: server.tables["peers"] == 0, "the end of the peer")
    assert server.tables["observers"] == 0
