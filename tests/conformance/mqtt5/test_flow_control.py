"""Receive Maximum both ways: MQTT 5.0, sections 3.1.2.11.3, 3.2.2.3.3 and 4.9."""

from collections.abc import Callable

import pytest

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt5.packets import (
    Connack,
    Disconnect,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
)
from tests.support.mqtt5.peer import Mqtt5Peer, mqtt5_client, mqtt5_peer
from tests.support.mqtt5.properties import Property

NewToken = Callable[[], str]
P = Property

RECEIVE_MAXIMUM_EXCEEDED = 0x93


async def identified(peer: Mqtt5Peer, cluster: Cluster, token: str, qos: int) -> None:
    await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", options=qos)
    await cluster.connectivity("connected", token)


@pytest.mark.parametrize("maximum", [1, 2, 3])
async def test_no_more_than_the_client_allows_at_qos_1(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, maximum: int
) -> None:
    """[MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2]: each PUBACK lets the next one out; a refusal as well."""
    token = new_token()
    limit = ((P.RECEIVE_MAXIMUM, maximum),)
    async with mqtt5_client(shared_gateway.mqtt_port, properties=limit) as peer:
        await identified(peer, cluster, token, 1)
        for number in range(8):
            await cluster.push(token, b"%d" % number)
        in_flight = [await peer.expect(Publish) for _ in range(maximum)]
        assert await peer.until_pingresp() == []
        for number in range(maximum, 8):
            oldest = in_flight.pop(0)
            await peer.send(Puback(oldest.packet_id, 0x80 if number % 2 else 0))
            in_flight.append(await peer.expect(Publish))
            assert in_flight[-1].payload == b"%d" % number
            assert await peer.until_pingresp() == []


async def test_no_more_than_the_client_allows_at_qos_2(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.4-9] [MQTT-4.9.0-2]: PUBCOMP counts, PUBREC does not, unless it refuses."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port, properties=((P.RECEIVE_MAXIMUM, 1),)) as peer:
        await identified(peer, cluster, token, 2)
        for number in range(3):
            await cluster.push(token, b"%d" % number)
        publish = await peer.expect(Publish)
        await peer.send(Pubrec(publish.packet_id))
        assert await peer.until_pingresp() == [Pubrel(publish.packet_id)]
        await peer.send(Pubcomp(publish.packet_id))
        publish = await peer.expect(Publish)
        assert publish.payload == b"1"
        await peer.send(Pubrec(publish.packet_id, 0x80))
        assert (await peer.expect(Publish)).payload == b"2"


async def test_everything_else_goes_on_meanwhile(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.4-10] [MQTT-4.9.0-3]: QoS 0, SUBACK, PUBACK, PINGRESP."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port, properties=((P.RECEIVE_MAXIMUM, 1),)) as peer:
        await identified(peer, cluster, token, 1)
        for _ in range(2):
            await cluster.push(token, b"QoS 1")
        assert (await peer.expect(Publish)).qos == 1
        await peer.send(Publish(f"kp1/app_v1/dcx/{token}/json", b"up", 1, 1))
        assert await peer.expect(Puback) == Puback(1)
        await peer.send(Subscribe(4, (("another", 0),)))
        assert (await peer.expect(Suback)).packet_id == 4
        assert await peer.until_pingresp() == []
        await cluster.push(token, b"QoS 0", extensionInstanceName="tsx")
        publish = await peer.expect(Publish)
        assert (publish.qos, publish.payload) == (0, b"QoS 0")


async def test_what_is_sent_again_keeps_to_the_new_maximum(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-4.9.0-1] [MQTT-4.4.0-1]: the maximum is of the connection, also of one that allows less than the last."""
    token = new_token()
    kept = (P.SESSION_EXPIRY_INTERVAL, 60)
    async with mqtt5_client(shared_gateway.mqtt_port, token, properties=(kept,)) as peer:
        await identified(peer, cluster, token, 1)
        for number in range(4):
            await cluster.push(token, b"%d" % number)
        for _ in range(4):
            await peer.expect(Publish)
        await peer.abort()
        await cluster.connectivity("disconnected", token)
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.connect(token, clean_start=False, properties=(kept, (P.RECEIVE_MAXIMUM, 2)))
        for number in range(4):
            publish = await peer.expect(Publish)
            assert (publish.payload, publish.dup) == (b"%d" % number, True)
            if number == 1:
                assert await peer.until_pingresp() == []
            if number >= 1:
                await peer.send(Puback(publish.packet_id))
                # The first one stays in flight.


async def test_the_gateway_s_maximum_is_kept_by_closing(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.3.4-7]: messages of QoS 2 whose PUBREL is owed are in flight."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        maximum = (await peer.connect()).get(P.RECEIVE_MAXIMUM) or 65535
        await peer.send(*(Publish("outside", b"", 2, number) for number in range(1, maximum + 1)))
        for number in range(1, maximum + 1):
            assert (await peer.expect(Pubrec)).packet_id == number
        assert await peer.until_pingresp() == []
        if maximum == 65535:
            return  # There are no more packet identifiers.
        await peer.send(Publish("outside", b"", 2, maximum + 1))
        assert await peer.until_disconnect() == Disconnect(RECEIVE_MAXIMUM_EXCEEDED)


async def test_released_messages_make_room(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.3.4-7] [MQTT-4.3.3-11]: any number, as long as each is released or at QoS 1."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        maximum = (await peer.connect()).get(P.RECEIVE_MAXIMUM) or 65535
        part = min(maximum, 1000)
        for start in range(0, 2 * maximum if maximum < 65535 else 2 * part, part):
            identifiers = [(start + number) % 65535 + 1 for number in range(part)]
            await peer.send(*(Publish("outside", b"", 2, identifier) for identifier in identifiers))
            for identifier in identifiers:
                assert (await peer.expect(Pubrec)).packet_id == identifier
            await peer.send(*(Pubrel(identifier) for identifier in identifiers))
            for identifier in identifiers:
                assert await peer.expect(Pubcomp) == Pubcomp(identifier)


async def test_connack_tells_the_maximum(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.3.4-7], 3.2.2.3.3: absent, it is 65,535."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        connack = await peer.connect()
    assert isinstance(connack, Connack)
    assert connack.get(P.RECEIVE_MAXIMUM) is None or 0 < connack.get(P.RECEIVE_MAXIMUM) < 65535
