"""Maximum Packet Size both ways: MQTT 5.0, sections 3.1.2.11.4 and 3.2.2.3.6."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt5 import codec
from tests.support.mqtt5.packets import Connect, Disconnect, Puback, Publish
from tests.support.mqtt5.peer import Mqtt5Peer, mqtt5_client, mqtt5_peer
from tests.support.mqtt5.properties import Property
from tests.support.nats import NatsServer

NewToken = Callable[[], str]
P = Property

PACKET_TOO_LARGE = 0x95


@pytest.fixture(scope="module")
def small(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    """A gateway that takes packets of 4000 bytes."""
    changes = {"kaa": {"kpc": {"transports": {"mqtt": {"max-packet-size": 4000}}}}}
    with GatewayProcess(shared_nats.url, changes) as process:
        yield process


async def identified(peer: Mqtt5Peer, cluster: Cluster, token: str, qos: int) -> None:
    await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", options=qos)
    await cluster.connectivity("connected", token)


async def test_up_to_what_connack_tells(small: GatewayProcess) -> None:
    """[MQTT-3.2.2-15]: the whole packet counts, with its fixed header."""
    async with mqtt5_peer(small.mqtt_port) as peer:
        maximum = (await peer.connect()).get(P.MAXIMUM_PACKET_SIZE)
        publish = Publish("outside", b"", 1, 1)
        room = maximum - len(codec.encode(publish)) - 1  # the remaining length has two bytes then
        fits = codec.encode(Publish("outside", b"x" * room, 1, 1))
        assert len(fits) == maximum
        await peer.send(fits)
        assert (await peer.expect(Puback)).packet_id == 1
        await peer.send(codec.encode(Publish("outside", b"x" * (room + 1), 1, 2)))
        assert await peer.refusal() == PACKET_TOO_LARGE


async def test_a_packet_that_is_too_large_is_refused_before_it_is_there(small: GatewayProcess) -> None:
    """[MQTT-4.13.1-1]: its length is enough to know."""
    async with mqtt5_client(small.mqtt_port) as peer:
        await peer.send(bytes.fromhex("30 ff ff ff 7f"))
        assert await peer.refusal() == PACKET_TOO_LARGE


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_message_that_is_too_large_for_the_client_is_skipped(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, qos: int
) -> None:
    """[MQTT-3.1.2-24] [MQTT-3.1.2-25]: and counted; what follows it comes."""
    token = new_token()
    maximum = 100
    name = ("events", "dropped", "mqtt_packet_size_of_client")
    before = shared_gateway.count(*name)
    limit = ((P.MAXIMUM_PACKET_SIZE, maximum),)
    async with mqtt5_client(shared_gateway.mqtt_port, properties=limit) as peer:
        await identified(peer, cluster, token, qos)
        for payload in (b"first", b"x" * maximum, b"last"):
            await cluster.push(token, payload)
        received = [await peer.expect(Publish) for _ in range(2)]
        assert [publish.payload for publish in received] == [b"first", b"last"]
        assert max(peer.bytes_received) <= maximum
    assert shared_gateway.count(*name) == before + 1


async def test_the_largest_message_that_fits(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.2-24]: to the byte."""
    token = new_token()
    topic = f"kp1/app_v1/dcx/{token}/json/status"
    size = len(codec.encode(Publish(topic, b"x" * 20, 1, 1)))
    for maximum, expected in ((size, [b"x" * 20, b"-"]), (size - 1, [b"-"])):
        limit = ((P.MAXIMUM_PACKET_SIZE, maximum),)
        async with mqtt5_client(shared_gateway.mqtt_port, properties=limit) as peer:
            await identified(peer, cluster, token, 1)
            await cluster.push(token, b"x" * 20)
            await cluster.push(token, b"-")
            received = [await peer.expect(Publish) for _ in expected]
            assert [publish.payload for publish in received] == expected
            await peer.abort()
            await cluster.connectivity("disconnected", token)
            cluster.events.clear()


async def test_a_message_that_is_too_large_behind_and_before_others_in_the_queue(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.2-25] [MQTT-4.9.0-2]: nothing is held up, neither by it nor by the place that it would have had."""
    token = new_token()
    properties = ((P.MAXIMUM_PACKET_SIZE, 100), (P.RECEIVE_MAXIMUM, 1))
    async with mqtt5_client(shared_gateway.mqtt_port, properties=properties) as peer:
        await identified(peer, cluster, token, 1)
        for number in range(6):
            await cluster.push(token, b"%d" % number + b"x" * 100 * (number in (1, 2, 4)))
        for number in (0, 3, 5):
            publish = await peer.expect(Publish)
            assert publish.payload == b"%d" % number
            assert await peer.until_pingresp() == []
            await peer.send(Puback(publish.packet_id))
        assert await peer.until_pingresp() == []


async def test_what_waited_is_measured_by_the_connection_that_gets_it(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.2-24] [MQTT-3.1.2-25]: in flight and queued messages, when the client allows less than before."""
    token = new_token()
    kept = (P.SESSION_EXPIRY_INTERVAL, 60)
    async with mqtt5_client(shared_gateway.mqtt_port, token, properties=(kept,)) as peer:
        await identified(peer, cluster, token, 1)
        for payload in (b"x" * 200, b"1"):
            await cluster.push(token, payload)
            await peer.expect(Publish)
        await peer.abort()
        await cluster.connectivity("disconnected", token)
    for payload in (b"y" * 200, b"2"):
        await cluster.push(token, payload)
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        connack = await peer.connect(
            token, clean_start=False, properties=(kept, (P.MAXIMUM_PACKET_SIZE, 120))
        )
        assert connack.session_present
        received = [packet for packet in await peer.until_pingresp() if isinstance(packet, Publish)]
        assert [publish.payload for publish in received] == [b"1", b"2"]
        assert max(peer.bytes_received) <= 120
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.connect(token, clean_start=False, properties=(kept,))
        received = [packet for packet in await peer.until_pingresp() if isinstance(packet, Publish)]
        assert [publish.payload for publish in received] == [b"1", b"2"]


@pytest.mark.parametrize("maximum", [1, 4, 8])
async def test_a_client_that_takes_nearly_nothing(shared_gateway: GatewayProcess, maximum: int) -> None:
    """[MQTT-3.1.2-24] [MQTT-3.2.2-19] [MQTT-3.2.2-20] [MQTT-3.14.0-1]: a CONNACK that does not fit is not sent."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(Connect("named", properties=((P.MAXIMUM_PACKET_SIZE, maximum),)))
        await peer.end_output()
        assert not any(isinstance(packet, Disconnect) for packet in await peer.until_closed())
        assert max(peer.bytes_received, default=0) <= maximum


async def test_disconnect_fits(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.14.2-3] [MQTT-3.1.2-24]"""
    async with mqtt5_client(shared_gateway.mqtt_port, properties=((P.MAXIMUM_PACKET_SIZE, 64),)) as peer:
        await peer.send(Connect())
        assert (await peer.until_disconnect()).reason_code == 0x82
        assert max(peer.bytes_received) <= 64
