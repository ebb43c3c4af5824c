"""Violations of a connected client: its connection is closed, others go on, and the reason is counted.

Source: MQTT 3.1.1, section 4.8 and those that each vector cites.
"""

from collections.abc import Callable

import pytest
from kaa_bench.mqtt_packets import (
    Connack,
    Connect,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    encode,
)

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import mqtt_client, mqtt_peer
from tests.support.nats import NatsServer

NewToken = Callable[[], str]


@pytest.mark.parametrize("when", ["alone", "behind-connect"])
@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        # 2.2.1: types that are reserved, and those that only a server sends
        ("00 00", "packet_of_the_server"),
        ("f0 00", "packet_of_the_server"),
        ("20 02 00 00", "packet_of_the_server"),
        ("90 03 0001 00", "packet_of_the_server"),
        ("b0 02 0001", "packet_of_the_server"),
        ("d0 00", "packet_of_the_server"),
        # 2.2.2-2: reserved flags
        ("c1 00", "reserved_flags"),
        ("e1 00", "reserved_flags"),
        ("41 02 0001", "reserved_flags"),
        ("60 02 0001", "reserved_flags"),
        ("80 06 0001 0001 61 00", "reserved_flags"),
        ("a0 05 0001 0001 61", "reserved_flags"),
        # 2.2.3: Remaining Length
        ("30 80 80 80 80 00", "malformed_remaining_length"),
        ("30 ff ff ff 7f", "packet_too_large"),
        # 3.12.2, 3.14: packets without a body
        ("c0 01 00", "malformed_length"),
        ("e0 01 00", "malformed_length"),
        # 3.4.2, 3.5.2, 3.6.2, 3.7.2: a packet identifier and nothing else
        ("40 00", "malformed_length"),
        ("40 03 0001 00", "malformed_length"),
        ("50 01 01", "malformed_length"),
        ("62 04 0001 0000", "malformed_length"),
        ("70 02 0000", "packet_id_0"),
        ("62 02 0000", "packet_id_0"),
        # 3.3.1-4: QoS 3; 3.3.1-2: DUP at QoS 0
        ("36 05 0001 61 0001", "qos_3"),
        ("38 03 0001 61", "dup_at_qos_0"),
        # 2.3.1-1: a packet identifier that is not 0
        ("32 05 0001 61 0000", "packet_id_0"),
        ("34 05 0001 61 0000", "packet_id_0"),
        # 3.3.2: fields that are not whole
        ("30 00", "truncated_field"),
        ("30 01 00", "truncated_field"),
        ("30 03 0002 61", "truncated_field"),
        ("32 04 0001 61 01", "truncated_field"),
        # 3.3.2-1, 3.3.2-2, 4.7.3-1: topic names
        ("30 02 0000", "empty_topic"),
        ("30 03 0001 23", "wildcard_in_topic_name"),
        ("30 05 0003 612f2b", "wildcard_in_topic_name"),
        ("30 03 0001 00", "nul_in_string"),
        ("30 03 0001 80", "not_utf8"),
        ("30 05 0003 edb080", "not_utf8"),
        # 3.8.3-3, 3.10.3-2: at least one topic filter
        ("82 02 0001", "no_topic_filter"),
        ("a2 02 0001", "no_topic_filter"),
        ("82 00", "truncated_field"),
        ("82 06 0000 0001 61 00", "packet_id_0"),
        ("a2 05 0000 0001 61", "packet_id_0"),
        ("82 05 0001 0001 61", "truncated_field"),
        ("82 05 0001 0002 61", "truncated_field"),
        # 3.8.3-4: requested QoS
        ("82 06 0001 0001 61 03", "malformed_requested_qos"),
        ("82 06 0001 0001 61 04", "malformed_requested_qos"),
        # 4.7.1-2, 4.7.1-3, 4.7.3-1, 3.8.3-1: topic filters
        ("82 05 0001 0000 00", "empty_topic_filter"),
        ("82 07 0001 0002 6123 00", "malformed_topic_filter"),
        ("82 08 0001 0003 232f61 00", "malformed_topic_filter"),
        ("82 07 0001 0002 612b 00", "malformed_topic_filter"),
        ("82 08 0001 0003 2b612f 00", "malformed_topic_filter"),
        ("82 07 0001 0002 2323 00", "malformed_topic_filter"),
        ("82 06 0001 0001 ff 00", "not_utf8"),
        ("82 06 0001 0001 00 00", "nul_in_string"),
        ("a2 08 0001 0004 612f2b61", "malformed_topic_filter"),
        # the first filter is good, the second is not
        ("82 0b 0001 0001 61 00 0002 2361 00", "malformed_topic_filter"),
    ],
)
async def test_closes_that_connection(
    shared_gateway: GatewayProcess, vector: str, reason: str, when: str
) -> None:
    """A violation in one segment with CONNECT counts too, and what follows it is not handled."""
    name = ("events", "closed", f"mqtt_{reason}")
    before = shared_gateway.metrics()
    evil = bytes.fromhex(vector) + encode(Publish("outside", b""))
    port = shared_gateway.mqtt_port
    async with mqtt_client(port, "same") as neighbour, mqtt_peer(port) as peer:
        if when == "alone":
            assert (await peer.connect("same")).return_code == 0
            await peer.send(evil)
            assert await peer.until_closed() == []
        else:
            await peer.send(encode(Connect("same")) + evil)
            assert await peer.until_closed() == [Connack(False, 0)]
        assert await neighbour.until_pingresp() == []
    after = shared_gateway.metrics()
    assert after[name] == before.get(name, 0) + 1
    assert after["messages_in", "mqtt"] == before["messages_in", "mqtt"]


async def test_what_was_whole_before_a_violation_counts(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, new_token: NewToken
) -> None:
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    async with Cluster(shared_nats.url, "dcx") as cluster, mqtt_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish(topic, b"good"), b"\x00\x00", Publish(topic, b"never"))
        assert await peer.until_closed() == []
        assert (await cluster.request()).fields["payload"] == b"good"
        assert len(cluster.requests) == 1


@pytest.mark.parametrize(
    ("topic_filter", "code"),
    [
        ("#", 0),
        ("+", 1),
        ("/", 2),
        ("//", 0),
        ("+/+/#", 1),
        ("a/+/b", 2),
        ("$SYS/#", 0),
        ("ü/温", 1),
        (" ", 2),
    ],
)
async def test_every_well_formed_filter_is_granted(
    shared_gateway: GatewayProcess, topic_filter: str, code: int
) -> None:
    """Each filter has its return code (3.9.3, 4.7); one repeated with another QoS replaces the first (3.8.4-3)."""
    async with mqtt_client(shared_gateway.mqtt_port) as peer:
        assert await peer.subscribe(topic_filter, topic_filter, qos=code) == (code, code)
        assert await peer.subscribe(topic_filter, qos=2 - code) == (2 - code,)


async def test_unsubscribing_is_always_confirmed(shared_gateway: GatewayProcess) -> None:
    """UNSUBACK comes even if no filter was subscribed (3.10.4-5)."""
    async with mqtt_client(shared_gateway.mqtt_port) as peer:
        await peer.subscribe("a/b")
        await peer.send(Unsubscribe(65535, ("a/b", "never/subscribed", "#")), Unsubscribe(2, ("a/b",)))
        assert await peer.expect(Unsuback) == Unsuback(65535)
        assert await peer.expect(Unsuback) == Unsuback(2)


async def test_unsubscribed_filters_no_longer_raise_the_qos(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, new_token: NewToken
) -> None:
    token = new_token()
    async with Cluster(shared_nats.url) as cluster, mqtt_client(shared_gateway.mqtt_port) as peer:
        await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", qos=1)
        await cluster.connectivity("connected", token)
        await cluster.push(token)
        assert (await peer.expect(Publish)).qos == 1
        await peer.send(Unsubscribe(2, (f"kp1/app_v1/dcx/{token}/#",)))
        await peer.expect(Unsuback)
        await cluster.push(token)
        assert (await peer.expect(Publish)).qos == 0


async def test_publishes_outside_kp1_are_acknowledged_and_counted(
    shared_gateway: GatewayProcess, shared_nats: NatsServer
) -> None:
    """Such messages are acknowledged and go nowhere: not to other clients, not to NATS."""
    before = shared_gateway.count("events", "ignored", "not_kp1")
    topics = [
        "a",
        "kp1",
        "kp2/app_v1/dcx/t/json",
        "/kp1/app_v1/dcx/t/json",
        "KP1/app_v1/dcx/t",
        "$SYS/x",
        "kaa.v1",
    ]
    port = shared_gateway.mqtt_port
    async with (
        Cluster(shared_nats.url, "dcx") as cluster,
        mqtt_client(port) as peer,
        mqtt_client(port) as other,
    ):
        await cluster.subscribe(">")
        cluster.requests.clear()
        await other.subscribe("#", "a")
        for number, topic in enumerate(topics, start=1):
            await peer.send(Publish(topic, b"x", retain=True), Publish(topic, b"x", 1, number))
        assert [await peer.expect(Puback) for _ in topics] == [Puback(n) for n in range(1, len(topics) + 1)]
        assert await peer.until_pingresp() == await other.until_pingresp() == []
        assert not cluster.requests
    assert shared_gateway.count("events", "ignored", "not_kp1") == before + 2 * len(topics)


async def test_mqtt_3_1_lets_reserved_flags_pass(shared_gateway: GatewayProcess) -> None:
    """MQTT 3.1 section 2.1 does not define the flags of most packets; its clients set DUP on some."""
    async with mqtt_client(shared_gateway.mqtt_port, "old", level=3) as peer:
        await peer.send(bytes.fromhex("8a 06 0001 0001 61 01"), bytes.fromhex("38 03 0001 61"))
        assert (await peer.receive()) is not None
        await peer.send(bytes.fromhex("c0 00"))
        assert await peer.receive() == Pingresp()


async def test_subscribe_in_pieces_with_many_filters(shared_gateway: GatewayProcess) -> None:
    async with mqtt_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Subscribe(5, tuple((f"filter/{n}/" + "x" * 100, n % 3) for n in range(900))))
        assert await peer.expect(Suback) == Suback(5, tuple(n % 3 for n in range(900)))
