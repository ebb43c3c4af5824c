"""Quality of service towards one client, both ways: MQTT 3.1.1 sections 4.3, 4.4 and 4.6."""

from collections.abc import Callable

import pytest
from kaa_bench.mqtt_packets import Puback, Pubcomp, Publish, Pubrec, Pubrel

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import MqttPeer, mqtt_client
from tests.support.nats import NatsServer

NewToken = Callable[[], str]

PACKET_IDS = 65_535


async def payloads(cluster: Cluster, count: int) -> list[bytes]:
    """The payloads that have come, of `count` at least: an acknowledgement may overtake what NATS brings here."""
    await cluster.next_requests(count)
    return [request.fields["payload"] for request in cluster.requests]


async def test_qos_1_is_acknowledged_in_order(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """Acknowledgements of forwarded, refused and ignored messages come in order (4.6.0-2), whatever the identifiers."""
    topics = [f"kp1/app_v1/dcx/{new_token()}/json", "kp1/nobody/dcx/t/json", "outside"]
    identifiers = [65535, *range(1, 300), 40000, 301]
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish(topics[0], b"resolves the token", 1, 1))
        assert await device.expect(Puback) == Puback(1)
        await device.send(
            *(Publish(topics[n % 3], b"%d" % n, 1, identifier) for n, identifier in enumerate(identifiers))
        )
        acknowledged: list[int] = []
        while len(acknowledged) < len(identifiers):
            packet = await device.receive()
            if isinstance(packet, Puback):
                acknowledged.append(packet.packet_id)
            else:
                assert isinstance(packet, Publish)
                assert packet.topic == "kp1/nobody/dcx/t/json/error"
    assert acknowledged == identifiers
    expected = [b"%d" % n for n in range(0, len(identifiers), 3)]
    assert (await payloads(cluster, 1 + len(expected)))[1:] == expected


async def test_qos_1_sent_again_is_forwarded_again(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """A second PUBLISH with the same identifier is a new message (4.3.2)."""
    publish = Publish(f"kp1/app_v1/dcx/{new_token()}/json", b"x", 1, 5)
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(publish, publish._replace(dup=True))
        assert [await device.expect(Puback), await device.expect(Puback)] == [Puback(5)] * 2
    assert await payloads(cluster, 2) == [b"x", b"x"]


async def test_qos_2_sent_again_is_forwarded_once(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """Until PUBREL, an identifier stands for one message, whether DUP is set or not (4.3.3)."""
    publish = Publish(f"kp1/app_v1/dcx/{new_token()}/json", b"once", 2, 5)
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(publish)
        assert await device.expect(Pubrec) == Pubrec(5)
        await device.send(publish._replace(dup=True), publish)
        assert [await device.expect(Pubrec), await device.expect(Pubrec)] == [Pubrec(5)] * 2
        await device.send(Pubrel(5))
        assert await device.expect(Pubcomp) == Pubcomp(5)
        # Now the identifier is free.
        await device.send(publish._replace(payload=b"again"))
        assert await device.expect(Pubrec) == Pubrec(5)
        await device.send(Pubrel(5), Pubrel(5))
        assert [await device.expect(Pubcomp), await device.expect(Pubcomp)] == [Pubcomp(5)] * 2
    assert await payloads(cluster, 2) == [b"once", b"again"]


async def test_qos_2_sent_twice_before_it_is_confirmed(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """Both come in one segment, and the first PUBREC answers both."""
    publish = Publish(f"kp1/app_v1/dcx/{new_token()}/json", b"once", 2, 5)
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(publish, publish._replace(dup=True))
        assert await device.expect(Pubrec) == Pubrec(5)
        await device.send(Pubrel(5))
        assert await device.expect(Pubcomp) == Pubcomp(5)
        assert await device.until_pingresp() == []
    assert await payloads(cluster, 1) == [b"once"]


async def test_qos_2_refused_completes_its_handshake(shared_gateway: GatewayProcess) -> None:
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish("kp1/nobody/dcx/t/json/1", b"", 2, 5))
        received = [await device.receive(), await device.receive()]
        assert Pubrec(5) in received
        (error,) = (packet for packet in received if isinstance(packet, Publish))
        assert (error.topic, error.qos) == ("kp1/nobody/dcx/t/json/1/error", 2)
        await device.send(Pubrel(5), Pubrec(error.packet_id))
        assert await device.expect(Pubcomp) == Pubcomp(5)
        assert await device.expect(Pubrel) == Pubrel(error.packet_id)


async def test_qos_2_messages_in_flight_are_as_many_as_there_are_identifiers(
    shared_gateway: GatewayProcess,
) -> None:
    """Some clients (MQTT.js) send thousands of messages before their first PUBREL (2.3.1, 4.3.3)."""
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        for first in range(1, PACKET_IDS + 1, 5000):
            identifiers = range(first, min(first + 5000, PACKET_IDS + 1))
            await device.send(*(Publish("outside", b"", 2, n) for n in identifiers))
            assert [(await device.expect(Pubrec)).packet_id for _ in identifiers] == list(identifiers)
        await device.send(Pubrel(7))
        assert await device.expect(Pubcomp) == Pubcomp(7)
        await device.send(Publish("outside", b"", 2, 7))
        assert await device.expect(Pubrec) == Pubrec(7)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (Pubrel(77), Pubcomp(77)),
        (Pubrec(77), Pubrel(77)),
        (Puback(77), None),
        (Pubcomp(77), None),
    ],
)
async def test_acknowledgements_of_unknown_identifiers_are_harmless(
    shared_gateway: GatewayProcess, sent: Puback | Pubrec | Pubrel | Pubcomp, answer: Pubcomp | Pubrel | None
) -> None:
    """The handshake ends even if both sides have forgotten the message (4.3.3)."""
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(sent)
        assert await device.until_pingresp() == ([] if answer is None else [answer])


async def identified(device: MqttPeer, cluster: Cluster, token: str, qos: int) -> None:
    """Subscribe to an endpoint's pushes and wait until they would arrive."""
    await device.subscribe(f"kp1/app_v1/dcx/{token}/#", qos=qos)
    await cluster.connectivity("connected", token)


async def test_qos_1_to_the_client(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """Identifiers of messages in flight differ (2.3.1-4), and are not 0."""
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await identified(device, cluster, token, qos=1)
        for number in range(10):
            await cluster.push(token, b"%d" % number)
        received = [await device.expect(Publish) for _ in range(10)]
        assert [packet.payload for packet in received] == [b"%d" % n for n in range(10)]
        assert len({packet.packet_id for packet in received} - {0}) == 10
        assert not any(packet.dup or packet.retain for packet in received)
        await device.send(*(Puback(packet.packet_id) for packet in received))
        assert await device.until_pingresp() == []


async def test_qos_2_to_the_client(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await identified(device, cluster, token, qos=2)
        await cluster.push(token, b"x")
        publish = await device.expect(Publish)
        assert publish.qos == 2
        await device.send(Pubrec(publish.packet_id), Pubrec(publish.packet_id))
        assert await device.until_pingresp() == [Pubrel(publish.packet_id)] * 2
        await device.send(Pubcomp(publish.packet_id), Pubcomp(publish.packet_id))
        assert await device.until_pingresp() == []


@pytest.mark.parametrize("qos", [1, 2])
async def test_the_window_opens_as_the_client_acknowledges(
    shared_nats: NatsServer, cluster: Cluster, new_token: NewToken, qos: int
) -> None:
    """At most in-flight-window messages are unacknowledged; the others follow in order, the newest are dropped."""
    limits = {"in-flight-window": 2, "queued-messages-per-session": 4}
    token = new_token()
    with GatewayProcess(shared_nats.url, {"kaa": {"kpc": {"transports": {"mqtt": limits}}}}) as gateway:
        async with mqtt_client(gateway.mqtt_port) as device:
            await identified(device, cluster, token, qos=qos)
            for number in range(8):
                await cluster.push(token, b"%d" % number)
            await cluster.push(token, b"", resourcePath="/not subscribed/at 0", extensionInstanceName="cmx")
            received = [await device.expect(Publish) for _ in range(3)]
            assert [packet.payload for packet in received] == [b"0", b"1", b""]
            assert await device.until_pingresp() == []
            for number in range(6):
                packet_id = received[0].packet_id
                if qos == 2:
                    await device.send(Pubrec(packet_id))
                    assert await device.expect(Pubrel) == Pubrel(packet_id)
                    # An identifier is in use until PUBCOMP: nothing follows yet.
                    assert await device.until_pingresp() == []
                # An acknowledgement of the wrong kind moves nothing.
                await device.send(Pubcomp(packet_id) if qos == 1 else Puback(packet_id))
                assert await device.until_pingresp() == []
                await device.send(Puback(packet_id) if qos == 1 else Pubcomp(packet_id))
                following = await device.until_pingresp()
                assert [packet.payload for packet in following if isinstance(packet, Publish)] == (
                    [b"%d" % (number + 2)] if number < 4 else []
                )
                received = [packet for packet in (*received[1:], *following) if isinstance(packet, Publish)]
                received = [packet for packet in received if packet.qos]
            assert received == []
        assert gateway.count("events", "dropped", "session_queue_full") == 2
