"""Observe: which pushes are notifications, their order and number, how an observation ends, and its bounds."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kaa_gateway.kp.revocation import Revocation
from kaa_gateway.wire.coap import Message

from tests.support.cluster import Cluster
from tests.support.coap import (
    CON,
    FETCH,
    GET,
    MAX_AGE,
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
from tests.support.slices import finished

PATH = "kp1/app_v1/dcx/token/config/json"
RESOURCE = "/config/json"
QUEUED_NOTIFICATIONS_MAX = 16
DAY = 86_400


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
    paths = [f"{PATH}/{number}" for number in range(3)]
    assert option(await register(cluster, client, paths[0]), OBSERVE) is not None
    assert option(await register(cluster, client, paths[1]), OBSERVE) is not None
    assert option(await register(cluster, client, paths[2]), OBSERVE) is None
    async with CoapClient(server.port) as other:
        assert option(await register(cluster, other, paths[0]), OBSERVE) is not None
        assert option(await register(cluster, other, paths[1]), OBSERVE) is None
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


async def test_another_token_replaces_that_of_the_same_resource(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    """A device that has restarted knows its last token only (RFC 7641 section 4.1)."""
    for number in range(5):
        answer = await register(cluster, client, token=b"t%d" % number)
        assert option(answer, OBSERVE) is not None
    assert server.tables["observers"] == 1
    await push(cluster, b"one")
    notification = await client.receive()
    assert (notification.token, notification.payload) == (b"t4", b"one")
    client.acknowledge(notification)
    assert await client.hears_nothing()


async def test_another_token_takes_over_what_waits(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    """The notification under the old token is not sent again; those behind it come under the new one."""
    await register(cluster, client, token=b"old")
    await push(cluster, b"one")
    await push(cluster, b"two")
    assert (await client.receive()).payload == b"one"
    await register(cluster, client, token=b"new")
    notification = await client.receive()
    assert (notification.token, notification.payload) == (b"new", b"two")
    client.acknowledge(notification)
    await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")


async def test_max_age_of_notifications(cluster: Cluster, client: CoapClient) -> None:
    """RFC 7641 section 4.3.1: without it, an observer would expect the next notification within a minute."""
    assert option(await register(cluster, client), MAX_AGE) == uint(43_200)
    await push(cluster, b"one")
    assert option(await client.receive(), MAX_AGE) == uint(43_200)


async def test_observers_are_told_of_the_end_of_the_gateway(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    answer = await register(cluster, client)
    server.core.begin_drain()
    notification = await client.receive()
    assert (notification.code, notification.token) == (0xA3, answer.token)
    assert server.tables["observers"] == 0
    assert not server.presence.present


async def test_observers_are_told_that_their_resource_is_gone(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    """Another configuration has no such extension instance; an acknowledgement is waited for."""
    answer = await register(cluster, client)
    server.core.list_links({"app_v1": {"dcx"}})
    assert await client.hears_nothing()
    server.core.list_links({"app_v1": {"echo"}})
    notification = await client.receive()
    assert (notification.type, notification.code, notification.token) == (CON, 0x84, answer.token)
    client.acknowledge(notification)
    await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")
    assert server.tables["observers"] == 0


async def test_observers_are_told_that_their_token_is_revoked(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    await register(cluster, client)
    revoked = Revocation(server.sessions).revoke_tokens("token", frozenset({b"app_v1"}), frozenset())
    assert finished(revoked) == 1
    assert (await client.receive()).code == 0x84
    assert server.tables["observers"] == 0


async def test_observers_are_told_of_the_end_of_a_silent_observation(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    await register(cluster, client)
    await server.put_forward(DAY + 10)
    assert (await client.receive()).code == 0xA3
    assert server.tables["peers"] == 0


async def test_an_observer_stays_verified_while_it_observes(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    """For a day of silence (RFC 7641 section 4.5), and no longer than it observes."""
    await register(cluster, client)
    await push(cluster, b"small")
    client.acknowledge(await client.receive())
    await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")
    await server.put_forward(DAY - 100)
    await push(cluster, bytes(1000))
    notification = await client.receive()
    assert len(notification.payload) == 1000
    client.acknowledge(notification)
    await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")
    await server.put_forward(DAY - 100)
    await push(cluster, bytes(1000))
    notification = await client.receive()
    client.send(Message(RST, 0, notification.message_id))
    await until(lambda: server.tables["observers"] == 0, "the end of the observation")
    client.send(client.request(PATH, method=GET))
    (request,) = await cluster.next_requests(1, after=1)
    await cluster.answer(request, bytes(1000))
    assert len((await client.receive()).payload) < 200


async def test_a_lost_first_notification_is_sent_again(cluster: Cluster, shared_nats: NatsServer) -> None:
    """The address is not verified: smaller blocks leave room for copies (RFC 7252 section 4.2)."""
    async with coap_server(shared_nats.url, ack_timeout=0.1) as server, CoapClient(server.port) as client:
        client.send(client.request(PATH, bytes(50), (OBSERVE, b""), method=GET))
        await cluster.answer(await cluster.request(), bytes(90))
        assert option(await client.receive(), OBSERVE) is not None
        await push(cluster, bytes(100))
        await until(lambda: len(client.inbox) >= 3, "copies")
        assert len({tuple(message) for message in client.inbox}) == 1
        assert client.bytes_received <= 3 * client.bytes_sent
        await asyncio.sleep(2)
        assert client.bytes_received <= 3 * client.bytes_sent
        assert server.tables["observers"] == 1
        client.acknowledge(client.inbox[0])
        await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")


async def test_a_notification_waits_for_room(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    """What may not be sent to an unverified address is kept, and sent when the peer has sent more."""
    await register(cluster, client, path="kp1/app_v1/dcx/token/c", token=b"")
    for number in range(4):
        await push(cluster, b"%d" % number * 40, "/c")
    first = await client.receive()
    await until(lambda: server.count("dropped", "coap_notification_queue_full") == 0, "the queue")
    client.acknowledge(first)
    for number in range(1, 4):
        notification = await client.receive()
        assert notification.payload == b"%d" % number * 40
        client.acknowledge(notification)
