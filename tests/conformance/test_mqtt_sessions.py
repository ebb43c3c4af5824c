"""Sessions that outlive their connection, and who may take over whose: MQTT 3.1.1 sections 3.1.2.4, 3.1.4, 4.1, 4.4.

Client identifiers are scoped to authenticated principals (test_mqtt_waiting.py); here all clients are anonymous.
"""

from collections.abc import Callable, Iterator

import pytest
from kaa_bench.mqtt_packets import Connack, Disconnect, Puback, Pubcomp, Publish, Pubrec, Pubrel, Will

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import MqttPeer, mqtt_client, mqtt_peer
from tests.support.nats import NatsServer

NewToken = Callable[[], str]

NEW = Connack(False, 0)
RESUMED = Connack(True, 0)


@pytest.fixture(scope="module")
def forgetful_gateway(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    """A gateway that keeps two absent sessions, and two messages for each."""
    limits = {"persistent-sessions": 2, "queued-messages-per-session": 2}
    with GatewayProcess(shared_nats.url, {"kaa": {"kpc": {"transports": {"mqtt": limits}}}}) as process:
        yield process


async def identified(device: MqttPeer, cluster: Cluster, token: str, qos: int = 1) -> None:
    """Subscribe to an endpoint's pushes and wait until they would arrive."""
    await device.subscribe(f"kp1/app_v1/dcx/{token}/#", qos=qos)
    await cluster.connectivity("connected", token)


async def leave(device: MqttPeer, cluster: Cluster, token: str) -> None:
    """Close without a DISCONNECT, and return when the gateway has noticed."""
    await device.abort()
    await cluster.connectivity("disconnected", token)
    cluster.events.clear()


async def test_session_present(shared_gateway: GatewayProcess, new_token: NewToken) -> None:
    """CONNACK tells whether there is a session (3.2.2.2); CleanSession 1 ends a stored one (3.1.2-6)."""
    client_id = new_token()
    for clean, expected in (
        (False, NEW), (False, RESUMED), (False, RESUMED), (True, NEW), (True, NEW), (False, NEW), (False, RESUMED),
    ):  # fmt: skip
        async with mqtt_peer(shared_gateway.mqtt_port) as device:
            assert await device.connect(client_id, clean_session=clean) == expected
            await device.send(Disconnect())
            assert await device.until_closed() == []


async def test_qos_1_in_flight_is_sent_again_with_dup(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """Messages come again with the same identifiers in the same order, until acknowledged (4.4.0-1, 3.3.1-1)."""
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port, token, clean_session=False) as device:
        await identified(device, cluster, token)
        for number in range(3):
            await cluster.push(token, b"%d" % number)
        first = [await device.expect(Publish) for _ in range(3)]
        await device.send(Puback(first[1].packet_id))
        assert await device.until_pingresp() == []
        await leave(device, cluster, token)
    expected = [first[0]._replace(dup=True), first[2]._replace(dup=True)]
    for _ in range(2):
        async with mqtt_peer(shared_gateway.mqtt_port) as device:
            assert await device.connect(token, clean_session=False) == RESUMED
            assert await device.until_pingresp() == expected
    async with mqtt_peer(shared_gateway.mqtt_port) as device:
        await device.connect(token, clean_session=False)
        assert await device.until_pingresp() == expected
        await device.send(*(Puback(packet.packet_id) for packet in expected))
        assert await device.until_pingresp() == []
    async with mqtt_peer(shared_gateway.mqtt_port) as device:
        assert await device.connect(token, clean_session=False) == RESUMED
        assert await device.until_pingresp() == []


async def test_qos_2_to_the_client_goes_on_where_it_was(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """PUBLISH is repeated until PUBREC, then PUBREL until PUBCOMP (4.3.3, 4.4.0-1)."""
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port, token, clean_session=False) as device:
        await identified(device, cluster, token, qos=2)
        await cluster.push(token, b"x")
        publish = await device.expect(Publish)
        await leave(device, cluster, token)
    pubrel = Pubrel(publish.packet_id)
    async with mqtt_peer(shared_gateway.mqtt_port) as device:
        assert await device.connect(token, clean_session=False) == RESUMED
        assert await device.expect(Publish) == publish._replace(dup=True)
        await device.send(Pubrec(publish.packet_id))
        assert await device.expect(Pubrel) == pubrel
    async with mqtt_peer(shared_gateway.mqtt_port) as device:
        assert await device.connect(token, clean_session=False) == RESUMED
        assert await device.expect(Pubrel) == pubrel
        await device.send(Pubcomp(publish.packet_id))
        assert await device.until_pingresp() == []
    async with mqtt_peer(shared_gateway.mqtt_port) as device:
        assert await device.connect(token, clean_session=False) == RESUMED
        assert await device.until_pingresp() == []


async def test_qos_2_from_the_client_goes_on_where_it_was(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """A message received before the connection broke is not forwarded again after it (4.3.3)."""
    token = new_token()
    publish = Publish(f"kp1/app_v1/dcx/{token}/json", b"once", 2, 7)
    async with mqtt_client(shared_gateway.mqtt_port, token, clean_session=False) as device:
        await device.send(publish)
        assert await device.expect(Pubrec) == Pubrec(7)
        await device.abort()
    async with mqtt_peer(shared_gateway.mqtt_port) as device:
        assert await device.connect(token, clean_session=False) == RESUMED
        await device.send(publish._replace(dup=True))
        assert await device.expect(Pubrec) == Pubrec(7)
        await device.send(Pubrel(7))
        assert await device.expect(Pubcomp) == Pubcomp(7)
        await device.send(publish._replace(payload=b"new"))
        assert await device.expect(Pubrec) == Pubrec(7)
    requests = await cluster.next_requests(2, after=0)
    assert [request.fields["payload"] for request in requests] == [b"once", b"new"]


async def test_what_is_pushed_meanwhile_waits(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """Messages wait in order and are new; QoS 0 does not wait. An answer to a QoS 1 request waits as well."""
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port, token, clean_session=False) as device:
        await identified(device, cluster, token)
        await device.send(Publish(f"kp1/app_v1/dcx/{token}/json/1", b"", 1, 1), Publish("outside", b"", 1, 2))
        assert [await device.expect(Puback), await device.expect(Puback)] == [Puback(1), Puback(2)]
        await leave(device, cluster, token)
    request = await cluster.request()
    await cluster.push(token, b"first")
    await cluster.answer(request, b"answer")
    await cluster.push(token, b"QoS 0", extensionInstanceName="cmx")
    await cluster.push(token, b"last")
    async with mqtt_peer(shared_gateway.mqtt_port) as device:
        assert await device.connect(token, clean_session=False) == RESUMED
        packets = [packet for packet in await device.until_pingresp() if isinstance(packet, Publish)]
    topic = f"kp1/app_v1/dcx/{token}/json"
    assert [(packet.topic, packet.payload, packet.qos, packet.dup) for packet in packets] == [
        (f"{topic}/status", b"first", 1, False),
        (f"{topic}/1/status", b"answer", 1, False),
        (f"{topic}/status", b"last", 1, False),
    ]


async def test_who_is_there_gets_a_push_rather_than_who_is_away(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """The old session of an endpoint that has roamed does not keep what the new one has."""
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port, token, clean_session=False) as device:
        await identified(device, cluster, token)
        await leave(device, cluster, token)
    async with mqtt_client(shared_gateway.mqtt_port, "elsewhere") as device:
        await identified(device, cluster, token)
        await cluster.push(token, b"here")
        assert (await device.expect(Publish)).payload == b"here"
    async with mqtt_peer(shared_gateway.mqtt_port) as device:
        assert await device.connect(token, clean_session=False) == RESUMED
        assert await device.until_pingresp() == []


async def test_a_clean_session_forgets(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """A clean session forgets subscriptions, messages in flight and the endpoint itself (3.1.2-6)."""
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port, token) as device:
        await identified(device, cluster, token)
        await cluster.push(token, b"in flight")
        await device.expect(Publish)
        await leave(device, cluster, token)
    before = shared_gateway.count("events", "dropped", "unknown_endpoint")
    await cluster.push(token, b"nobody here")
    await until(
        lambda: shared_gateway.count("events", "dropped", "unknown_endpoint") == before + 1,
        "the push to be dropped",
    )
    async with mqtt_peer(shared_gateway.mqtt_port) as device:
        assert await device.connect(token) == NEW
        assert await device.until_pingresp() == []


# Take-over


async def test_a_persistent_client_takes_over_its_session(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """The old connection is closed without DISCONNECT, so its will is published; the session goes on (3.1.4-2)."""
    token = new_token()
    will = Will(f"kp1/app_v1/dcx/{token}/will", b"taken over")
    before = shared_gateway.count("events", "closed", "mqtt_taken_over")
    port = shared_gateway.mqtt_port
    async with mqtt_client(port, token, clean_session=False, will=will) as old, mqtt_peer(port) as new:
        await identified(old, cluster, token)
        await cluster.push(token, b"in flight")
        publish = await old.expect(Publish)
        assert await new.connect(token, clean_session=False) == RESUMED
        assert await old.until_closed() == []
        assert await new.expect(Publish) == publish._replace(dup=True)
        await cluster.push(token, b"push")
        assert (await new.expect(Publish)).payload == b"push"
    assert (await cluster.request()).fields["payload"] == b"taken over"
    assert shared_gateway.count("events", "closed", "mqtt_taken_over") == before + 1


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
async def test_anonymous_clients_with_equal_ids_live_side_by_side(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, first: bool, second: bool
) -> None:
    """Clients share a client ID unless both ask for a stored session: whole fleets have one hard-coded ID."""
    client_id = new_token()
    tokens = [new_token(), new_token()]
    port = shared_gateway.mqtt_port
    async with mqtt_client(port, client_id, clean_session=first) as one, mqtt_peer(port) as other:
        assert await other.connect(client_id, clean_session=second) == NEW
        for device, token in ((one, tokens[0]), (other, tokens[1])):
            await identified(device, cluster, token)
            await cluster.push(token, token.encode())
            assert (await device.expect(Publish)).payload == token.encode()
        assert await one.until_pingresp() == []


# Bounds


async def test_absent_sessions_are_bounded_and_the_oldest_goes(
    forgetful_gateway: GatewayProcess, new_token: NewToken
) -> None:
    client_ids = [new_token() for _ in range(3)]
    before = forgetful_gateway.count("events", "dropped", "session_evicted")
    for client_id in client_ids:
        async with mqtt_client(forgetful_gateway.mqtt_port, client_id, clean_session=False) as device:
            await device.send(Disconnect())
            await device.until_closed()
    assert forgetful_gateway.count("events", "dropped", "session_evicted") > before
    for client_id, expected in ((client_ids[0], NEW), (client_ids[2], RESUMED)):
        async with mqtt_peer(forgetful_gateway.mqtt_port) as device:
            assert await device.connect(client_id, clean_session=False) == expected
            await device.send(Disconnect())
            await device.until_closed()


async def test_messages_kept_for_an_absent_client_are_bounded(
    forgetful_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    before = forgetful_gateway.count("events", "dropped", "session_queue_full")
    async with mqtt_client(forgetful_gateway.mqtt_port, token, clean_session=False) as device:
        await identified(device, cluster, token)
        await leave(device, cluster, token)
    for number in range(4):
        await cluster.push(token, b"%d" % number)
    await until(
        lambda: forgetful_gateway.count("events", "dropped", "session_queue_full") == before + 2,
        "two to be dropped",
    )
    async with mqtt_peer(forgetful_gateway.mqtt_port) as device:
        assert await device.connect(token, clean_session=False) == RESUMED
        kept = [packet.payload for packet in await device.until_pingresp() if isinstance(packet, Publish)]
    assert kept == [b"0", b"1"]
