"""Sessions: Session Expiry Interval, Clean Start, resuming, taking over: MQTT 5.0, sections 3.1.2.11.2, 4.1 and 4.4."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kaa_bench.mqtt_packets import Publish as Publish3

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import mqtt_peer
from tests.support.mqtt5.packets import Disconnect, Puback, Pubcomp, Publish, Pubrec, Pubrel
from tests.support.mqtt5.peer import Mqtt5Peer, mqtt5_client, mqtt5_peer
from tests.support.mqtt5.properties import Property
from tests.support.nats import NatsServer

NewToken = Callable[[], str]
P = Property

PROTOCOL_ERROR = 0x82
TAKEN_OVER = 0x8E
NEVER = 0xFFFFFFFF


def expiry(seconds: int) -> tuple[tuple[Property, Any], ...]:
    return ((P.SESSION_EXPIRY_INTERVAL, seconds),)


@pytest.fixture(scope="module")
def capped(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    """A gateway that keeps sessions for two minutes at most."""
    changes = {"kaa": {"kpc": {"transports": {"mqtt": {"session-expiry": 120}}}}}
    with GatewayProcess(shared_nats.url, changes) as process:
        yield process


async def leave(peer: Mqtt5Peer, disconnect: Disconnect | None = None) -> None:
    """Disconnect, and return when the gateway has closed the connection."""
    await peer.send(disconnect or Disconnect())
    assert await peer.until_closed() == []


async def session_present(port: int, client_id: str, properties: Any = ()) -> bool:
    """Whether there is a session to resume; it is then over."""
    async with mqtt5_peer(port) as peer:
        connack = await peer.connect(client_id, clean_start=False, properties=properties)
        await leave(peer, Disconnect(properties=expiry(0) if properties else ()))
    return connack.session_present


async def identified(peer: Mqtt5Peer, cluster: Cluster, token: str, qos: int = 1) -> None:
    await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", options=qos)
    await cluster.connectivity("connected", token)


async def gone(peer: Mqtt5Peer, cluster: Cluster, token: str) -> None:
    """Go without a word; returns when the gateway has noticed."""
    await peer.abort()
    await cluster.connectivity("disconnected", token)
    cluster.events.clear()


async def test_session_present(shared_gateway: GatewayProcess, new_token: NewToken) -> None:
    """[MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.2-23] [MQTT-3.1.4-4]"""
    client_id = new_token()
    for clean, expected in (
        (False, False), (False, True), (False, True), (True, False), (False, True), (True, False), (True, False),
    ):  # fmt: skip
        async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
            connack = await peer.connect(client_id, clean_start=clean, properties=expiry(60))
            assert connack.session_present == expected
            await leave(peer)


@pytest.mark.parametrize("properties", [(), expiry(0)])
async def test_without_expiry_a_session_ends_with_its_connection(
    shared_gateway: GatewayProcess, new_token: NewToken, properties: Any
) -> None:
    """[MQTT-4.1.0-2], 3.1.2.11.2: also without Clean Start, unlike MQTT 3.1.1."""
    client_id = new_token()
    for clean in (True, False):
        async with mqtt5_client(
            shared_gateway.mqtt_port, client_id, clean_start=clean, properties=properties
        ) as peer:
            await leave(peer)
        assert not await session_present(shared_gateway.mqtt_port, client_id)


async def test_a_session_expires(shared_gateway: GatewayProcess, new_token: NewToken) -> None:
    """[MQTT-4.1.0-2]: and goes then, whoever comes."""
    client_id = new_token()
    before = shared_gateway.count("events", "dropped", "session_expired")
    async with mqtt5_client(shared_gateway.mqtt_port, client_id, properties=expiry(1)) as peer:
        await leave(peer)
    await until(
        lambda: shared_gateway.count("events", "dropped", "session_expired") > before, "the session to expire"
    )
    assert not await session_present(shared_gateway.mqtt_port, client_id)


async def test_a_session_does_not_expire_while_it_is_connected(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-4.1.0-1]"""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port, token, properties=expiry(1)) as peer:
        await identified(peer, cluster, token)
        await asyncio.sleep(2.5)
        await cluster.push(token, b"still there")
        assert (await peer.expect(Publish)).qos == 1


@pytest.mark.parametrize(("asked", "told"), [(60, None), (120, None), (121, 120), (NEVER, 120), (None, None)])
async def test_the_expiry_is_capped(
    capped: GatewayProcess, new_token: NewToken, asked: int | None, told: int | None
) -> None:
    """3.2.2.3.2: CONNACK tells the value if it is another one."""
    async with mqtt5_peer(capped.mqtt_port) as peer:
        connack = await peer.connect(new_token(), properties=() if asked is None else expiry(asked))
        assert connack.get(P.SESSION_EXPIRY_INTERVAL) in ({told, asked} if told is None else {told})
        await peer.send(Disconnect(properties=expiry(0)))


async def test_disconnect_changes_the_expiry(shared_gateway: GatewayProcess, new_token: NewToken) -> None:
    """3.14.2.2.2: to nothing, and to more."""
    port, client_id = shared_gateway.mqtt_port, new_token()
    async with mqtt5_client(port, client_id, properties=expiry(60)) as peer:
        await leave(peer, Disconnect(properties=expiry(0)))
    assert not await session_present(port, client_id)
    async with mqtt5_client(port, client_id, properties=expiry(1)) as peer:
        await leave(peer, Disconnect(properties=expiry(60)))
    await asyncio.sleep(3)
    assert await session_present(port, client_id, expiry(1))


@pytest.mark.parametrize("connect", [(), expiry(0)])
async def test_disconnect_must_not_begin_an_expiry(
    shared_gateway: GatewayProcess, new_token: NewToken, connect: Any
) -> None:
    """3.14.2.2.2: 0 in CONNECT and more in DISCONNECT is a protocol error; there is nothing to resume."""
    client_id = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port, client_id, properties=connect) as peer:
        await peer.send(Disconnect(properties=expiry(60)))
        assert await peer.refusal() in (PROTOCOL_ERROR, None)
    assert not await session_present(shared_gateway.mqtt_port, client_id)


async def test_messages_wait_for_an_absent_client(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-4.5.0-1] [MQTT-3.1.2-23]: in order, as new messages."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port, token, properties=expiry(60)) as peer:
        await identified(peer, cluster, token)
        await gone(peer, cluster, token)
    for number in range(3):
        await cluster.push(token, b"%d" % number)
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        assert (await peer.connect(token, clean_start=False, properties=expiry(60))).session_present
        received = [packet for packet in await peer.until_pingresp() if isinstance(packet, Publish)]
    assert [(packet.payload, packet.dup) for packet in received] == [(b"%d" % n, False) for n in range(3)]


async def test_what_is_in_flight_is_sent_again(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-3.3.1-3] [MQTT-4.3.3-3] [MQTT-4.3.3-5] [MQTT-4.3.3-6]: PUBLISH with DUP
    until PUBREC, then PUBREL until PUBCOMP, under the same identifiers in the same order, and at no other time."""
    token = new_token()
    port = shared_gateway.mqtt_port
    async with mqtt5_client(port, token, properties=expiry(60)) as peer:
        await identified(peer, cluster, token, qos=2)
        for number in range(3):
            await cluster.push(token, b"%d" % number)
        first = [await peer.expect(Publish) for _ in range(3)]
        await peer.send(Pubrec(first[1].packet_id))
        assert await peer.expect(Pubrel) == Pubrel(first[1].packet_id)
        assert await peer.until_pingresp() == []
        await gone(peer, cluster, token)
    for _ in range(2):
        async with mqtt5_peer(port) as peer:
            assert (await peer.connect(token, clean_start=False, properties=expiry(60))).session_present
            received = await peer.until_pingresp()
            publishes = [packet for packet in received if isinstance(packet, Publish)]
            assert [(each.packet_id, each.payload, each.dup) for each in publishes] == [
                (first[0].packet_id, b"0", True),
                (first[2].packet_id, b"2", True),
            ]
            assert [packet for packet in received if isinstance(packet, Pubrel)] == [
                Pubrel(first[1].packet_id)
            ]
    async with mqtt5_peer(port) as peer:
        await peer.connect(token, clean_start=False, properties=expiry(60))
        await peer.until_pingresp()
        await peer.send(Pubcomp(first[1].packet_id), Pubrec(first[0].packet_id), Pubrec(first[2].packet_id))
        assert await peer.until_pingresp() == [Pubrel(first[0].packet_id), Pubrel(first[2].packet_id)]
        await peer.send(Pubcomp(first[0].packet_id), Pubcomp(first[2].packet_id))
        assert await peer.until_pingresp() == []
    async with mqtt5_peer(port) as peer:
        assert (await peer.connect(token, clean_start=False, properties=expiry(60))).session_present
        assert await peer.until_pingresp() == []


async def test_qos_2_from_the_client_goes_on(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-4.3.3-10] [MQTT-4.1.0-1]: what was received before the connection broke is not forwarded again."""
    token = new_token()
    topic = f"kp1/app_v1/dcx/{token}/json"
    async with mqtt5_client(shared_gateway.mqtt_port, token, properties=expiry(60)) as peer:
        await peer.send(Publish(topic, b"once", 2, 7))
        assert await peer.expect(Pubrec) == Pubrec(7)
        await peer.abort()
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        assert (await peer.connect(token, clean_start=False, properties=expiry(60))).session_present
        await peer.send(Publish(topic, b"once", 2, 7, True))
        assert await peer.expect(Pubrec) == Pubrec(7)
        await peer.send(Pubrel(7))
        assert await peer.expect(Pubcomp) == Pubcomp(7)
    assert [request.fields["payload"] for request in await cluster.next_requests(1)] == [b"once"]


async def test_a_clean_start_forgets(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.2-4]: messages in flight, and those that wait."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port, token, properties=expiry(60)) as peer:
        await identified(peer, cluster, token)
        await cluster.push(token, b"in flight")
        await peer.expect(Publish)
        await gone(peer, cluster, token)
    await cluster.push(token, b"waiting")
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        assert await peer.connect(token, properties=expiry(60)) is not None
        assert await peer.until_pingresp() == []


# Taking over


async def test_a_session_is_taken_over(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.4-3] [MQTT-3.14.0-1]: the old connection is told so; the session goes on, with what is in flight."""
    token = new_token()
    port = shared_gateway.mqtt_port
    async with mqtt5_client(port, token, properties=expiry(60)) as old, mqtt5_peer(port) as new:
        await identified(old, cluster, token)
        await cluster.push(token, b"in flight")
        publish = await old.expect(Publish)
        assert (await new.connect(token, clean_start=False, properties=expiry(60))).session_present
        assert (await old.until_disconnect()).reason_code == TAKEN_OVER
        again = await new.expect(Publish)
        assert (again.packet_id, again.payload, again.dup) == (publish.packet_id, b"in flight", True)
        await new.send(Puback(again.packet_id))
        await cluster.push(token, b"push")
        assert (await new.expect(Publish)).payload == b"push"


async def test_a_clean_start_takes_over_as_well(shared_gateway: GatewayProcess, new_token: NewToken) -> None:
    """[MQTT-3.1.4-3] [MQTT-3.1.2-4]"""
    token = new_token()
    port = shared_gateway.mqtt_port
    async with mqtt5_client(port, token, properties=expiry(60)) as old, mqtt5_peer(port) as new:
        assert not (await new.connect(token, properties=expiry(60))).session_present
        assert (await old.until_disconnect()).reason_code == TAKEN_OVER
        assert await new.until_pingresp() == []


# Another version


@pytest.mark.parametrize("level", [3, 4])
async def test_a_session_survives_a_change_of_version(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, level: int
) -> None:
    """4.1: what waits and what is in flight, from 5 to an old version and back."""
    token = new_token()
    port = shared_gateway.mqtt_port
    kept = (*expiry(60), (P.TOPIC_ALIAS_MAXIMUM, 5))
    topic = f"kp1/app_v1/dcx/{token}/json/status"
    async with mqtt5_client(port, token, properties=kept) as peer:
        await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", options=1, identifier=3)
        await cluster.connectivity("connected", token)
        for number in range(2):
            await cluster.push(token, b"%d" % number, timeout=60_000)
        first = [await peer.expect(Publish) for _ in range(2)]
        await gone(peer, cluster, token)
    await cluster.push(token, b"2", timeout=60_000)
    async with mqtt_peer(port) as old:
        assert (await old.connect(token, clean_session=False, level=level)).session_present
        publishes = [await old.expect(Publish3) for _ in range(3)]
        assert [(each.topic, each.payload, each.dup, each.qos) for each in publishes] == [
            (topic, b"0", True, 1),
            (topic, b"1", True, 1),
            (topic, b"2", False, 1),
        ]
        assert [each.packet_id for each in publishes[:2]] == [each.packet_id for each in first]
    async with mqtt5_peer(port) as peer:
        assert (await peer.connect(token, clean_start=False, properties=kept)).session_present
        again = [await peer.expect(Publish) for _ in range(3)]
        assert [(peer.topic_of(each), each.payload, each.dup) for each in again] == [
            (topic, b"%d" % number, True) for number in range(3)
        ]
