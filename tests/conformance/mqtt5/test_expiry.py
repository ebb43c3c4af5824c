"""Message expiry to the client: MQTT 5.0, section 3.3.2.3.3; 4/ESP, `timeout`."""

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import mqtt_client
from tests.support.mqtt5.packets import Puback, Pubcomp, Publish, Pubrec, Pubrel
from tests.support.mqtt5.peer import Mqtt5Peer, mqtt5_client, mqtt5_peer
from tests.support.mqtt5.properties import Property

NewToken = Callable[[], str]
P = Property

EXPIRED = ("events", "dropped", "expired")


async def identified(peer: Mqtt5Peer, cluster: Cluster, token: str, qos: int) -> None:
    await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", options=qos)
    await cluster.connectivity("connected", token)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_the_timeout_of_a_push_becomes_its_expiry(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, qos: int
) -> None:
    """[MQTT-3.3.2-6]: what is left of it, in seconds, at least one; without a timeout there is none."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await identified(peer, cluster, token, qos)
        for timeout_ms, seconds in (
            (60_000, {59, 60}),
            (0, {None}),
            (300, {1}),
            (2**40, {0xFFFFFFFF, 2**40 // 1000}),
        ):
            await cluster.push(token, b"push", timeout=timeout_ms)
            publish = await peer.expect(Publish)
            expiry = publish.get(P.MESSAGE_EXPIRY_INTERVAL)
            assert expiry in seconds or (timeout_ms == 2**40 and expiry > 2**40 // 1000 - 60)
            if qos == 1:
                await peer.send(Puback(publish.packet_id))


async def test_a_message_that_was_under_way_has_less_time_left(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-6]: the timeout counts from the ExtensionData's timestamp."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await identified(peer, cluster, token, 1)
        minute_ago = time.time_ns() // 1_000_000 - 60_000
        await cluster.push(token, b"push", timestamp=minute_ago, timeout=90_000)
        assert (await peer.expect(Publish)).get(P.MESSAGE_EXPIRY_INTERVAL) in (29, 30)


async def test_what_has_expired_is_not_sent(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-5]"""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await identified(peer, cluster, token, 1)
        minute_ago = time.time_ns() // 1_000_000 - 60_000
        await cluster.push(token, b"expired", timestamp=minute_ago, timeout=30_000)
        await cluster.push(token, b"next")
        assert (await peer.expect(Publish)).payload == b"next"


async def test_the_expiry_of_a_response(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-6]: an answer has a timeout as well."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish(f"kp1/app_v1/dcx/{new_token()}/json/1", b"request"))
        await cluster.answer(await cluster.request(), b"answer", timeout=60_000)
        publish = await peer.expect(Publish)
    assert publish.get(P.MESSAGE_EXPIRY_INTERVAL) in (59, 60)


async def test_messages_expire_while_they_wait_for_an_absent_client(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-5]: each for itself, in the middle of others, and they are counted."""
    token = new_token()
    kept = ((P.SESSION_EXPIRY_INTERVAL, 60),)
    before = shared_gateway.count(*EXPIRED)
    async with mqtt5_client(shared_gateway.mqtt_port, token, properties=kept) as peer:
        await identified(peer, cluster, token, 1)
        await peer.abort()
        await cluster.connectivity("disconnected", token)
    for payload, timeout in ((b"stays", 60_000), (b"goes", 500), (b"goes too", 800), (b"last", 0)):
        await cluster.push(token, payload, timeout=timeout)
    await asyncio.sleep(1.2)
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        assert (await peer.connect(token, clean_start=False, properties=kept)).session_present
        received = [packet for packet in await peer.until_pingresp() if isinstance(packet, Publish)]
    assert [publish.payload for publish in received] == [b"stays", b"last"]
    assert received[0].get(P.MESSAGE_EXPIRY_INTERVAL) in (57, 58, 59)
    assert received[1].get(P.MESSAGE_EXPIRY_INTERVAL) is None
    assert shared_gateway.count(*EXPIRED) == before + 2


async def test_messages_expire_while_they_wait_for_a_full_window(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-5] [MQTT-4.9.0-2]: and make no hole in the order."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port, properties=((P.RECEIVE_MAXIMUM, 1),)) as peer:
        await identified(peer, cluster, token, 1)
        for payload, timeout in ((b"in flight", 0), (b"goes", 500), (b"goes too", 500), (b"last", 60_000)):
            await cluster.push(token, payload, timeout=timeout)
        publish = await peer.expect(Publish)
        await asyncio.sleep(1.2)
        await peer.send(Puback(publish.packet_id))
        assert (await peer.expect(Publish)).payload == b"last"


async def test_what_was_sent_once_does_not_expire(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-4.3.3-7] [MQTT-4.3.3-13] [MQTT-4.4.0-1]: it is sent again, and its handshake goes on."""
    token = new_token()
    kept = ((P.SESSION_EXPIRY_INTERVAL, 60),)
    async with mqtt5_client(shared_gateway.mqtt_port, token, properties=kept) as peer:
        await identified(peer, cluster, token, 2)
        for payload in (b"published", b"received"):
            await cluster.push(token, payload, timeout=500)
        first = [await peer.expect(Publish) for _ in range(2)]
        await peer.send(Pubrec(first[1].packet_id))
        assert await peer.expect(Pubrel) == Pubrel(first[1].packet_id)
        await peer.abort()
        await cluster.connectivity("disconnected", token)
    await asyncio.sleep(1.2)
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        assert (await peer.connect(token, clean_start=False, properties=kept)).session_present
        received = await peer.until_pingresp()
        publishes = [packet for packet in received if isinstance(packet, Publish)]
        assert [(each.payload, each.dup) for each in publishes] == [(b"published", True)]
        assert Pubrel(first[1].packet_id) in received
        await peer.send(Pubcomp(first[1].packet_id), Pubrec(first[0].packet_id))
        assert await peer.until_pingresp() == [Pubrel(first[0].packet_id)]


async def test_an_old_version_s_messages_expire_as_well(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-5]: MQTT 3.1.1 has no field to tell it, but a stale command is stale there too."""
    token = new_token()
    before = shared_gateway.count(*EXPIRED)
    async with mqtt_client(shared_gateway.mqtt_port, token, clean_session=False) as peer:
        await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", qos=1)
        await cluster.connectivity("connected", token)
        await peer.abort()
        await cluster.connectivity("disconnected", token)
    await cluster.push(token, b"goes", timeout=500)
    await cluster.push(token, b"stays", timeout=60_000)
    await asyncio.sleep(1.2)
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        kept = ((P.SESSION_EXPIRY_INTERVAL, 60),)
        assert (await peer.connect(token, clean_start=False, properties=kept)).session_present
        (publish,) = await peer.until_pingresp()
        assert isinstance(publish, Publish)
        assert publish.payload == b"stays"
    await until(lambda: shared_gateway.count(*EXPIRED) == before + 1, "one to be counted")
