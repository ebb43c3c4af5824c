"""CONNECT and CONNACK: MQTT 5.0, sections 3.1 and 3.2. Byte vectors cite their section."""

from collections.abc import Callable

import pytest

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt5 import codec
from tests.support.mqtt5.packets import Connack, Connect, Disconnect, Pingreq, Publish, Will
from tests.support.mqtt5.peer import mqtt5_client, mqtt5_peer
from tests.support.mqtt5.properties import Property

NewToken = Callable[[], str]
P = Property

MALFORMED = 0x81
PROTOCOL_ERROR = 0x82
UNSUPPORTED_VERSION = 0x84
RETAIN_NOT_SUPPORTED = 0x9A
TOO_LARGE = 0x95


@pytest.mark.parametrize(
    ("name", "vector"),
    [
        # 3.1.2: flags: Clean Start; keep-alive 60; no properties; client ID "a"
        ("plain", "10 0e 0004 4d515454 05 02 003c 00 0001 61"),
        # MQTT-3.1.3-6: no client identifier
        ("no client ID", "10 0d 0004 4d515454 05 02 003c 00 0000"),
        # ... without Clean Start as well, unlike MQTT 3.1.1
        ("no client ID, no clean start", "10 0d 0004 4d515454 05 00 003c 00 0000"),
        # MQTT-3.1.3-5: longer than 23 bytes, and other characters
        ("long client ID", "10 27 0004 4d515454 05 02 003c 00 001a" + "d0b0" * 13),
        # MQTT-1.5.4-3: U+FEFF is a character like others
        ("byte order mark", "10 10 0004 4d515454 05 02 003c 00 0003 efbbbf"),
        # 3.1.2.9: a password without a user name
        ("password alone", "10 11 0004 4d515454 05 42 003c 00 0001 61 0001 70"),
        # 3.1.3.6: a password is binary
        ("binary password", "10 14 0004 4d515454 05 c2 003c 00 0001 61 0001 75 0001 ff"),
        # MQTT-3.1.2-9, 3.1.3: a will with its properties, topic and an empty payload
        ("will", "10 14 0004 4d515454 05 16 003c 00 0001 61 00 0001 77 0000"),
        # 3.1.2.11: every property that does not ask for authentication
        (
            "properties",
            "10 2e 0004 4d515454 05 02 003c 20 11 0000000a 21 0005 27 00010000 22 0003 19 01 17 00 "
            "26 0001 61 0001 62 26 0000 0000 0001 61",
        ),
    ],
)
async def test_accepted(shared_gateway: GatewayProcess, name: str, vector: str) -> None:
    """[MQTT-3.1.2-1] [MQTT-3.1.2-9] [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.3-5] [MQTT-3.1.4-5] [MQTT-1.5.4-3]
    [MQTT-3.1.2-12] [MQTT-3.1.2-17] [MQTT-3.1.2-19] [MQTT-3.2.0-1]"""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex(vector))
        connack = await peer.expect(Connack)
        assert (connack.session_present, connack.reason_code) == (False, 0)
        assert await peer.until_pingresp() == []


@pytest.mark.parametrize(
    ("vector", "codes"),
    [
        # MQTT-3.1.2-3: the reserved flag
        ("10 0d 0004 4d515454 05 03 003c 00 0000", {MALFORMED}),
        # MQTT-3.1.2-11, MQTT-3.1.2-13: Will QoS and Will Retain without a will
        ("10 0d 0004 4d515454 05 0a 003c 00 0000", {MALFORMED}),
        ("10 0d 0004 4d515454 05 12 003c 00 0000", {MALFORMED}),
        ("10 0d 0004 4d515454 05 22 003c 00 0000", {MALFORMED}),
        # MQTT-3.1.2-12: Will QoS 3
        ("10 13 0004 4d515454 05 1e 003c 00 0000 00 0001 77 0000", {MALFORMED}),
        # MQTT-3.1.2-9: fields of the will that are not there
        ("10 0d 0004 4d515454 05 06 003c 00 0000", {MALFORMED}),
        ("10 0e 0004 4d515454 05 06 003c 00 0000 00", {MALFORMED}),
        ("10 11 0004 4d515454 05 06 003c 00 0000 00 0001 77", {MALFORMED}),
        # MQTT-3.1.2-17, MQTT-3.1.2-19: user name and password that are not there
        ("10 0d 0004 4d515454 05 82 003c 00 0000", {MALFORMED}),
        ("10 0d 0004 4d515454 05 42 003c 00 0000", {MALFORMED}),
        ("10 10 0004 4d515454 05 c2 003c 00 0000 0001 75", {MALFORMED}),
        # MQTT-3.1.2-16, MQTT-3.1.2-18: what no flag announces
        ("10 10 0004 4d515454 05 02 003c 00 0000 0001 75", {MALFORMED}),
        ("10 0e 0004 4d515454 05 02 003c 00 0000 00", {MALFORMED}),
        # MQTT-3.1.3-3: no client identifier field
        ("10 0b 0004 4d515454 05 02 003c 00", {MALFORMED}),
        ("10 0c 0004 4d515454 05 02 003c 00 00", {MALFORMED}),
        ("10 0d 0004 4d515454 05 02 003c 00 0001", {MALFORMED}),
        # MQTT-2.2.2-1: no property length
        ("10 0a 0004 4d515454 05 02 003c", {MALFORMED}),
        # 3.1.2.10: half a keep-alive
        ("10 09 0004 4d515454 05 02 00", {MALFORMED}),
        # MQTT-3.1.3-4, MQTT-1.5.4-1, MQTT-1.5.4-2: the client identifier
        ("10 0e 0004 4d515454 05 02 003c 00 0001 ff", {MALFORMED, 0x85}),
        ("10 10 0004 4d515454 05 02 003c 00 0003 eda080", {MALFORMED, 0x85}),
        ("10 0e 0004 4d515454 05 02 003c 00 0001 00", {MALFORMED, 0x85}),
        # MQTT-3.1.3-12: the user name
        ("10 10 0004 4d515454 05 82 003c 00 0000 0001 ff", {MALFORMED}),
        ("10 10 0004 4d515454 05 82 003c 00 0000 0001 00", {MALFORMED}),
        # MQTT-3.1.3-11, MQTT-4.7.0-1, MQTT-4.7.3-1: the will topic
        ("10 13 0004 4d515454 05 06 003c 00 0000 00 0001 ff 0000", {MALFORMED}),
        ("10 13 0004 4d515454 05 06 003c 00 0000 00 0001 23 0000", {MALFORMED, PROTOCOL_ERROR, 0x90}),
        ("10 13 0004 4d515454 05 06 003c 00 0000 00 0001 2b 0000", {MALFORMED, PROTOCOL_ERROR, 0x90}),
        ("10 12 0004 4d515454 05 06 003c 00 0000 00 0000 0000", {MALFORMED, PROTOCOL_ERROR, 0x90}),
    ],
)
async def test_malformed(shared_gateway: GatewayProcess, vector: str, codes: set[int]) -> None:
    """[MQTT-3.1.4-1] [MQTT-3.1.2-3] [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13] [MQTT-3.1.2-16]
    [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-3] [MQTT-3.1.3-4] [MQTT-3.1.3-8] [MQTT-3.1.3-11]
    [MQTT-3.1.3-12] [MQTT-3.2.2-7] [MQTT-3.2.2-8] [MQTT-4.13.1-1] [MQTT-4.13.2-1]: CONNACK says why, then it is over."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex(vector))
        assert await peer.refusal() in codes


@pytest.mark.parametrize("level", [0, 6, 7, 0x85, 255])
async def test_another_version(shared_gateway: GatewayProcess, level: int) -> None:
    """[MQTT-3.1.2-2]: the CONNACK is that of MQTT 5 or of a version that the server knows best."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(codec.packet(0x10, bytes.fromhex(f"0004 4d515454 {level:02x} 02 003c 00 0000")))
        assert await peer.rest() in (
            b"",
            bytes.fromhex("20 02 00 01"),
            bytes.fromhex("20 03 00 84 00"),
        )


@pytest.mark.parametrize("name", [b"MQTS", b"mqtt", b"MQTTT", b""])
async def test_another_protocol(shared_gateway: GatewayProcess, name: bytes) -> None:
    """[MQTT-3.1.2-1]"""
    body = len(name).to_bytes(2, "big") + name + bytes.fromhex("05 02 003c 00 0000")
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(codec.packet(0x10, body))
        assert await peer.rest() in (b"", bytes.fromhex("20 03 00 84 00"))


async def test_nothing_after_a_refused_connect_is_processed(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.4-6] [MQTT-3.2.2-7]"""
    refused = Connect(properties=((P.RECEIVE_MAXIMUM, 0),))
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(refused, Publish(f"kp1/app_v1/dcx/{new_token()}/json", b"x"), Pingreq())
        assert await peer.until_closed() == [Connack(False, PROTOCOL_ERROR)]
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish(f"kp1/app_v1/dcx/{new_token()}/json", b"last"))
        assert (await cluster.request()).fields["payload"] == b"last"


async def test_packets_right_behind_connect_are_processed(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """3.1.4: a client need not wait for CONNACK. [MQTT-3.2.0-1]: which comes first."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(Connect(), Publish(f"kp1/app_v1/dcx/{new_token()}/json", b"early"), Pingreq())
        assert isinstance(await peer.receive(), Connack)
        assert (await cluster.request()).fields["payload"] == b"early"


async def test_a_large_packet_right_behind_connect_is_processed(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """The limit of CONNECT's size ends with CONNECT."""
    payload = b"x" * 500_000
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(Connect(), Publish(f"kp1/app_v1/dcx/{new_token()}/json", payload))
        assert isinstance(await peer.receive(), Connack)
        assert (await cluster.request()).fields["payload"] == payload


async def test_connack_tells_what_the_gateway_can(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.2.2-9] [MQTT-3.2.2-22] [MQTT-4.12.0-6]: all QoS; no retained messages, no shared subscriptions."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        connack = await peer.connect("named", keep_alive=60)
    assert connack.get(P.RETAIN_AVAILABLE) == 0
    assert connack.get(P.SHARED_SUBSCRIPTION_AVAILABLE) == 0
    assert connack.get(P.TOPIC_ALIAS_MAXIMUM) == 64
    assert connack.get(P.MAXIMUM_PACKET_SIZE) > 0
    for absent in (
        P.MAXIMUM_QOS, P.WILDCARD_SUBSCRIPTION_AVAILABLE, P.SUBSCRIPTION_IDENTIFIER_AVAILABLE,
        P.SERVER_KEEP_ALIVE, P.AUTHENTICATION_METHOD, P.AUTHENTICATION_DATA, P.REASON_STRING, P.RESPONSE_INFORMATION,
        P.ASSIGNED_CLIENT_IDENTIFIER, P.SERVER_REFERENCE,
    ):  # fmt: skip
        assert connack.get(absent) is None


async def test_a_client_identifier_is_assigned(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]: a new one each time."""
    assigned = set()
    for _ in range(5):
        async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
            connack = await peer.connect("")
            assigned.add(connack.get(P.ASSIGNED_CLIENT_IDENTIFIER))
            await peer.send(Disconnect())
            await peer.until_closed()
    assert None not in assigned
    assert "" not in assigned
    assert len(assigned) == 5


async def test_an_assigned_client_identifier_is_good_for_coming_back(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.1.3-7] [MQTT-3.1.3-2]: the session is that of the identifier."""
    kept = ((P.SESSION_EXPIRY_INTERVAL, 60),)
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        client_id = (await peer.connect("", properties=kept)).get(P.ASSIGNED_CLIENT_IDENTIFIER)
        await peer.send(Disconnect())
        await peer.until_closed()
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        connack = await peer.connect(client_id, clean_start=False, properties=kept)
        assert connack.session_present
        assert connack.get(P.ASSIGNED_CLIENT_IDENTIFIER) is None


@pytest.mark.parametrize("asked", [None, 0, 1])
async def test_response_information(shared_gateway: GatewayProcess, asked: int | None) -> None:
    """[MQTT-3.1.2-28]: only for who asks; it is the beginning of a Response Topic."""
    properties = () if asked is None else ((P.REQUEST_RESPONSE_INFORMATION, asked),)
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        connack = await peer.connect("asks", properties=properties)
    information = connack.get(P.RESPONSE_INFORMATION)
    assert bool(information) == (asked == 1)


async def test_a_will_that_is_retained_is_refused(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.2.2-13] [MQTT-3.1.2-15]: there are no retained messages."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(Connect(will=Will("outside", retain=True)))
        assert await peer.refusal() == RETAIN_NOT_SUPPORTED


async def test_connect_that_is_too_long(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.1.4-2]: no CONNECT is so long; the rest is not waited for."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex("10 ff ff ff 7f 0004 4d515454 05"))
        assert await peer.refusal() in (None, TOO_LARGE)


async def test_split_at_every_byte(shared_gateway: GatewayProcess) -> None:
    """[MQTT-4.2-1]: TCP is a stream of bytes."""
    will = Will("outside", b"x", 1, properties=((P.WILL_DELAY_INTERVAL, 1), (P.CONTENT_TYPE, "text/plain")))
    connect = codec.encode(
        Connect("split", will=will, user_name="u", password=b"p", properties=((P.RECEIVE_MAXIMUM, 9),))
    )
    async with mqtt5_client(shared_gateway.mqtt_port) as neighbour:
        for cut in range(1, len(connect)):
            async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
                await peer.send(connect[:cut])
                await neighbour.until_pingresp()
                await peer.send(connect[cut:])
                assert (await peer.expect(Connack)).reason_code == 0
                await peer.send(Disconnect())
                assert await peer.until_closed() == []
