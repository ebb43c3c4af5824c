"""CONNECT and what must come before and after it: MQTT 3.1.1 section 3.1 and 3.2, MQTT 3.1 section 3.1.

Byte vectors are written out here; each cites its section.
"""

from collections.abc import AsyncIterator, Callable

import pytest
from kaa_bench.mqtt_packets import (
    Connack,
    Connect,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Will,
    encode,
)

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import MqttPeer, mqtt_client, mqtt_peer
from tests.support.nats import NatsServer

NewToken = Callable[[], str]

ACCEPTED = Connack(False, 0)
UNACCEPTABLE_PROTOCOL_VERSION = Connack(False, 1)
IDENTIFIER_REJECTED = Connack(False, 2)


@pytest.fixture
async def neighbour(shared_gateway: GatewayProcess) -> AsyncIterator[MqttPeer]:
    """Another connection, which must still work after the test."""
    async with mqtt_client(shared_gateway.mqtt_port) as peer:
        yield peer
        assert await peer.until_pingresp() == []


@pytest.mark.parametrize(
    ("name", "vector"),
    [
        # 3.1.2.1, 3.1.2.2: protocol name MQTT, level 4; flags: clean session; keep-alive 60; client ID "a"
        ("MQTT 3.1.1", "10 0d 0004 4d515454 04 02 003c 0001 61"),
        # MQTT 3.1 section 3.1: protocol name MQIsdp, level 3
        ("MQTT 3.1", "10 0f 0006 4d5149736470 03 02 003c 0001 61"),
        # 3.1.3.1: a client ID of zero bytes with clean session
        ("empty client ID", "10 0c 0004 4d515454 04 02 003c 0000"),
        # 3.1.3.1: a server may take IDs that are longer than 23 bytes and hold other characters
        ("long client ID", "10 26 0004 4d515454 04 02 003c 001a" + "d0b0" * 13),
        # 3.1.2.8, 3.1.2.9: user name "u" and password "p"
        ("credentials", "10 13 0004 4d515454 04 c2 003c 0001 61 0001 75 0001 70"),
        # 3.1.2.8: a user name alone
        ("user name", "10 10 0004 4d515454 04 82 003c 0001 61 0001 75"),
        # 3.1.3.5: a password is binary
        ("binary password", "10 13 0004 4d515454 04 c2 003c 0001 61 0001 75 0001 ff"),
        # 3.1.2.5: a will with an empty message, QoS 2, retain
        ("will", "10 12 0004 4d515454 04 36 003c 0001 61 0001 77 0000"),
        # MQTT 3.1 section 3.1: a client may set the user name flag and leave the field out
        ("3.1 without user name", "10 0f 0006 4d5149736470 03 82 003c 0001 61"),
    ],
)
async def test_accepted(shared_gateway: GatewayProcess, name: str, vector: str) -> None:
    async with mqtt_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex(vector))
        assert await peer.receive() == ACCEPTED
        assert await peer.until_pingresp() == []


@pytest.mark.parametrize(
    ("vector", "connack", "reason"),
    [
        # 3.1.2.2: an unsupported level is answered with 0x01
        (
            "10 0d 0004 4d515454 06 02 003c 00 0000",
            UNACCEPTABLE_PROTOCOL_VERSION,
            "unacceptable_protocol_version",
        ),
        (
            "10 0c 0004 4d515454 00 02 003c 0000",
            UNACCEPTABLE_PROTOCOL_VERSION,
            "unacceptable_protocol_version",
        ),
        (
            "10 0c 0004 4d515454 ff 02 003c 0000",
            UNACCEPTABLE_PROTOCOL_VERSION,
            "unacceptable_protocol_version",
        ),
        # The level of a bridge to a broker
        (
            "10 0c 0004 4d515454 84 02 003c 0000",
            UNACCEPTABLE_PROTOCOL_VERSION,
            "unacceptable_protocol_version",
        ),
        # Each protocol name has its own level
        (
            "10 0c 0004 4d515454 03 02 003c 0000",
            UNACCEPTABLE_PROTOCOL_VERSION,
            "unacceptable_protocol_version",
        ),
        (
            "10 0e 0006 4d5149736470 04 02 003c 0000",
            UNACCEPTABLE_PROTOCOL_VERSION,
            "unacceptable_protocol_version",
        ),
        # ... and nothing behind an unknown level is looked at
        ("10 07 0004 4d515454 06", UNACCEPTABLE_PROTOCOL_VERSION, "unacceptable_protocol_version"),
        ("10 09 0006 4d5149736470 04", UNACCEPTABLE_PROTOCOL_VERSION, "unacceptable_protocol_version"),
        # 3.1.3.1: an empty client ID without clean session is answered with 0x02
        ("10 0c 0004 4d515454 04 00 003c 0000", IDENTIFIER_REJECTED, "identifier_rejected"),
        # MQTT 3.1 section 3.1: a client ID has at least one character
        ("10 0e 0006 4d5149736470 03 02 003c 0000", IDENTIFIER_REJECTED, "identifier_rejected"),
    ],
)
async def test_refused_with_a_return_code_then_closed(
    shared_gateway: GatewayProcess, neighbour: MqttPeer, vector: str, connack: Connack, reason: str
) -> None:
    before = shared_gateway.count("events", "closed", f"mqtt_{reason}")
    async with mqtt_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex(vector))
        assert await peer.until_closed() == [connack]
    assert shared_gateway.count("events", "closed", f"mqtt_{reason}") == before + 1


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        # 3.1.0-1: the first packet must be CONNECT; the first byte is enough to know
        ("c0", "first_packet_not_connect"),
        ("30", "first_packet_not_connect"),
        ("20 02 00 00", "first_packet_not_connect"),
        ("00 00", "first_packet_not_connect"),
        # 2.2.2-2: the flags of CONNECT's fixed header are 0
        ("11 0c 0004 4d", "first_packet_not_connect"),
        # Not MQTT at all: HTTP, TLS
        ("47 45 54 20 2f 20", "first_packet_not_connect"),
        ("16 03 01 02 00 01", "first_packet_not_connect"),
        # 2.2.3: a Remaining Length has at most four bytes
        ("10 80 80 80 80 01", "malformed_remaining_length"),
        ("10 ff ff ff ff", "malformed_remaining_length"),
        # No CONNECT is so long; refused before the rest of it comes
        ("10 ff ff ff 7f", "packet_too_large"),
        ("10 80 80 80 01", "packet_too_large"),
        # 3.1.2-1: the protocol name
        ("10 0c 0004 4d515455 04 02 003c 0000", "unknown_protocol_name"),
        ("10 0c 0004 6d717474 04 02 003c 0000", "unknown_protocol_name"),
        ("10 08 0000 04 02 003c 0000", "unknown_protocol_name"),
        # 3.1.2-3: the reserved connect flag is 0
        ("10 0c 0004 4d515454 04 03 003c 0000", "reserved_connect_flag"),
        # 3.1.2-13 to 15: will QoS and retain need the will flag; will QoS is not 3
        ("10 0c 0004 4d515454 04 0a 003c 0000", "malformed_will_flags"),
        ("10 0c 0004 4d515454 04 22 003c 0000", "malformed_will_flags"),
        ("10 12 0004 4d515454 04 1e 003c 0001 61 0001 77 0000", "malformed_will_flags"),
        # 3.1.2-22: no password without user name
        ("10 0f 0004 4d515454 04 42 003c 0000 0001 70", "password_without_user_name"),
        # 3.1.3: fields that the flags announce are there, and nothing else
        ("10 00", "truncated_field"),
        ("10 06 0004 4d515454", "truncated_field"),
        ("10 0a 0004 4d515454 04 02 003c", "truncated_field"),
        ("10 0c 0004 4d515454 04 02 003c 0001", "truncated_field"),
        ("10 0c 0004 4d515454 04 82 003c 0000", "truncated_field"),
        ("10 0f 0004 4d515454 04 c2 003c 0000 0001 75", "truncated_field"),
        ("10 0d 0004 4d515454 04 02 003c 0000 00", "trailing_bytes"),
        # 1.5.3-1, 1.5.3-2, 3.1.3-4: strings are UTF-8, without surrogates and NUL
        ("10 0d 0004 4d515454 04 02 003c 0001 ff", "not_utf8"),
        ("10 0f 0004 4d515454 04 02 003c 0003 eda080", "not_utf8"),
        ("10 0e 0004 4d515454 04 02 003c 0002 c0af", "not_utf8"),
        ("10 0d 0004 4d515454 04 02 003c 0001 00", "nul_in_string"),
        ("10 10 0004 4d515454 04 82 003c 0001 61 0001 ff", "not_utf8"),
        # A will's topic is a topic name (3.1.3.2)
        ("10 12 0004 4d515454 04 06 003c 0001 61 0001 23 0000", "wildcard_in_topic_name"),
        ("10 11 0004 4d515454 04 06 003c 0001 61 0000 0000", "empty_topic"),
    ],
)
async def test_closed_without_an_answer(
    shared_gateway: GatewayProcess, neighbour: MqttPeer, vector: str, reason: str
) -> None:
    """Only that connection is closed, and nothing is kept of it (3.1.4-1, 4.8)."""
    before = shared_gateway.metrics()
    async with mqtt_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex(vector))
        assert await peer.until_closed() == []
    await until(
        lambda: shared_gateway.count("connections_closed", "mqtt") > before["connections_closed", "mqtt"],
        "it",
    )
    after = shared_gateway.metrics()
    name = ("events", "closed", f"mqtt_{reason}")
    assert after[name] == before.get(name, 0) + 1
    assert after["sessions",] == before["sessions",]


async def test_a_second_connect_is_a_violation(shared_gateway: GatewayProcess, neighbour: MqttPeer) -> None:
    """A second CONNECT is a violation (3.1.0-2)."""
    before = shared_gateway.count("events", "closed", "mqtt_second_connect")
    async with mqtt_client(shared_gateway.mqtt_port, "twice") as peer:
        await peer.send(Connect("twice"), Pingreq())
        assert await peer.until_closed() == []
    async with mqtt_peer(shared_gateway.mqtt_port) as hasty:
        await hasty.send(Connect("twice"), Connect("twice"))
        assert await hasty.until_closed() == [ACCEPTED]
    assert shared_gateway.count("events", "closed", "mqtt_second_connect") == before + 2


async def test_whole_session_in_one_segment_and_split_at_every_byte(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, neighbour: MqttPeer, new_token: NewToken
) -> None:
    """TCP has no packets: CONNECT, SUBSCRIBE, PUBLISH at QoS 1 and PINGREQ, cut once at each place."""
    token = new_token()
    topic = f"kp1/app_v1/dcx/{token}/json"
    stream = b"".join(
        encode(packet)
        for packet in (
            Connect("split", will=Will("w", b""), user_name="user", password=b"word"),
            Subscribe(7, ((f"{topic}/#", 1), ("#", 0))),
            Publish(topic, b"payload", 1, 9),
            Pingreq(),
        )
    )
    async with Cluster(shared_nats.url, "dcx") as cluster:
        for cut in range(len(stream)):
            async with mqtt_peer(shared_gateway.mqtt_port) as peer:
                await peer.send(stream[:cut])
                # The gateway has read the first part when it has answered others who came later.
                await neighbour.until_pingresp()
                await peer.send(stream[cut:])
                received = [await peer.receive() for _ in range(4)]
                assert received[:2] == [ACCEPTED, Suback(7, (1, 0))]
                assert Pingresp() in received
        requests = await cluster.next_requests(len(stream))
        assert {request.fields["payload"] for request in requests} == {b"payload"}
        assert len(cluster.requests) == len(stream)


async def test_one_byte_at_a_time(
    shared_gateway: GatewayProcess, shared_nats: NatsServer, neighbour: MqttPeer, new_token: NewToken
) -> None:
    stream = encode(Connect("slow")) + encode(Publish(f"kp1/app_v1/dcx/{new_token()}/json", b"x" * 200))
    async with Cluster(shared_nats.url, "dcx") as cluster, mqtt_peer(shared_gateway.mqtt_port) as peer:
        for at in range(len(stream)):
            await peer.send(stream[at : at + 1])
            await neighbour.until_pingresp()
        assert (await cluster.request()).fields["payload"] == b"x" * 200
