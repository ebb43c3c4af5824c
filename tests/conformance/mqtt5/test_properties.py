"""Properties in packets that must not have them, twice, with wrong values, and cut off: MQTT 5.0, section 2.2.2."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.mqtt5 import codec
from tests.support.mqtt5.packets import (
    Connect,
    Disconnect,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
    Will,
)
from tests.support.mqtt5.peer import mqtt5_client, mqtt5_peer
from tests.support.mqtt5.properties import TABLE, Kind, PacketType, Property, may_repeat

MALFORMED = 0x81
PROTOCOL_ERROR = 0x82
TOPIC_ALIAS_INVALID = 0x94
PACKET_TOO_LARGE = 0x95
QUOTA_EXCEEDED = 0x97

VALUES: dict[Kind, Any] = {
    Kind.BYTE: 1,
    Kind.TWO_BYTES: 1,
    Kind.FOUR_BYTES: 1000,
    Kind.VARIABLE: 1,
    Kind.STRING: "text",
    Kind.BINARY: b"data",
    Kind.PAIR: ("name", "value"),
}
PACKETS: dict[PacketType, Packet] = {
    PacketType.CONNECT: Connect(),
    PacketType.PUBLISH: Publish("outside", b"", 1, 1),
    PacketType.PUBACK: Puback(9),
    PacketType.PUBREC: Pubrec(9),
    PacketType.PUBREL: Pubrel(9),
    PacketType.PUBCOMP: Pubcomp(9),
    PacketType.SUBSCRIBE: Subscribe(1, (("a", 0),)),
    PacketType.UNSUBSCRIBE: Unsubscribe(1, ("a",)),
    PacketType.DISCONNECT: Disconnect(),
}
"""What a client sends. AUTH is refused whatever it has (test_authentication.py)."""

P = Property


def with_properties(packet_type: PacketType, *properties: tuple[Property, Any]) -> Packet:
    """A packet of the type with these properties. WILL is a CONNECT whose will has them."""
    if packet_type is PacketType.WILL:
        return Connect(will=Will("outside", properties=properties))
    return replace(PACKETS[packet_type], properties=properties)


def value_of(identifier: Property) -> Any:
    return VALUES[TABLE[identifier][0]]


async def refusal(gateway: GatewayProcess, packet: Packet | bytes) -> int | None:
    """The reason code with which the gateway ends a connection over which this comes."""
    encoded = packet if isinstance(packet, bytes) else codec.encode(packet)
    if encoded[0] == 0x10:
        async with mqtt5_peer(gateway.mqtt_port) as peer:
            await peer.send(encoded)
            return await peer.refusal()
    async with mqtt5_client(gateway.mqtt_port) as peer:
        await peer.send(encoded)
        return await peer.refusal()


def forbidden() -> Iterator[tuple[PacketType, Property]]:
    for packet_type in (PacketType.WILL, *PACKETS):
        for identifier, (_, places) in TABLE.items():
            if packet_type not in places:
                yield packet_type, identifier


def names(value: object) -> str:
    return value.name if isinstance(value, PacketType | Property) else ""


@pytest.mark.parametrize(("packet_type", "identifier"), list(forbidden()), ids=names)
async def test_a_property_of_another_packet(
    shared_gateway: GatewayProcess, packet_type: PacketType, identifier: Property
) -> None:
    """[MQTT-4.13.1-1], 2.2.2.2: it is malformed. Authentication Data in CONNECT is refused with its method."""
    packet = with_properties(packet_type, (identifier, value_of(identifier)))
    assert await refusal(shared_gateway, packet) in (MALFORMED, PROTOCOL_ERROR)


def repeated() -> Iterator[tuple[PacketType, Property]]:
    for packet_type in (PacketType.WILL, *PACKETS):
        for identifier, (_, places) in TABLE.items():
            of_authentication = identifier in (P.AUTHENTICATION_METHOD, P.AUTHENTICATION_DATA)
            if packet_type in places and not may_repeat(identifier, packet_type) and not of_authentication:
                yield packet_type, identifier


@pytest.mark.parametrize(("packet_type", "identifier"), list(repeated()), ids=names)
async def test_a_property_twice(
    shared_gateway: GatewayProcess, packet_type: PacketType, identifier: Property
) -> None:
    """[MQTT-4.13.1-1], 3.1.2.11 and others: a protocol error, even if both values are the same."""
    twice = ((identifier, value_of(identifier)),) * 2
    assert await refusal(shared_gateway, with_properties(packet_type, *twice)) == PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("packet_type", "identifier", "value", "codes"),
    [
        (PacketType.CONNECT, P.RECEIVE_MAXIMUM, 0, {PROTOCOL_ERROR}),
        (PacketType.CONNECT, P.MAXIMUM_PACKET_SIZE, 0, {PROTOCOL_ERROR}),
        (PacketType.CONNECT, P.REQUEST_PROBLEM_INFORMATION, 2, {PROTOCOL_ERROR}),
        (PacketType.CONNECT, P.REQUEST_RESPONSE_INFORMATION, 2, {PROTOCOL_ERROR}),
        (PacketType.CONNECT, P.REQUEST_RESPONSE_INFORMATION, 255, {PROTOCOL_ERROR}),
        (PacketType.WILL, P.PAYLOAD_FORMAT_INDICATOR, 2, {PROTOCOL_ERROR, MALFORMED}),
        (PacketType.PUBLISH, P.PAYLOAD_FORMAT_INDICATOR, 2, {PROTOCOL_ERROR, MALFORMED}),
        (PacketType.PUBLISH, P.TOPIC_ALIAS, 0, {TOPIC_ALIAS_INVALID}),
        (PacketType.SUBSCRIBE, P.SUBSCRIPTION_IDENTIFIER, 0, {PROTOCOL_ERROR}),
        (PacketType.WILL, P.RESPONSE_TOPIC, "a/#", {PROTOCOL_ERROR}),
        (PacketType.WILL, P.RESPONSE_TOPIC, "a/+/b", {PROTOCOL_ERROR}),
    ],
)
async def test_a_value_that_is_not_allowed(
    shared_gateway: GatewayProcess, packet_type: PacketType, identifier: Property, value: Any, codes: set[int]
) -> None:
    """[MQTT-3.3.2-8] [MQTT-3.3.2-14] [MQTT-4.13.1-1], and the section of each property."""
    assert await refusal(shared_gateway, with_properties(packet_type, (identifier, value))) in codes


CONNECT_HEAD = bytes.fromhex("0004 4d515454 05 02 0000")
PUBLISH_HEAD = bytes.fromhex("0001 61 0001")


def raw(packet_type: PacketType, properties: bytes, end: bytes = b"") -> bytes:
    """A packet with these bytes for its properties, with their length or without."""
    if packet_type is PacketType.CONNECT:
        return codec.packet(0x10, CONNECT_HEAD + properties + (end or b"\0\0"))
    if packet_type is PacketType.PUBLISH:
        return codec.packet(0x32, PUBLISH_HEAD + properties + end)
    if packet_type is PacketType.SUBSCRIBE:
        return codec.packet(0x82, b"\0\1" + properties + (end or b"\0\1a\0"))
    if packet_type is PacketType.UNSUBSCRIBE:
        return codec.packet(0xA2, b"\0\1" + properties + (end or b"\0\1a"))
    if packet_type is PacketType.PUBACK:
        return codec.packet(0x40, b"\0\1\0" + properties)
    return codec.packet(0xE0, b"\0" + properties)


RAW_TYPES = [
    PacketType.CONNECT, PacketType.PUBLISH, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE, PacketType.PUBACK,
    PacketType.DISCONNECT,
]  # fmt: skip


@pytest.mark.parametrize("packet_type", RAW_TYPES, ids=names)
@pytest.mark.parametrize(
    "properties",
    [
        "05 26 0001 61 00",  # a User Property without its value
        "04 26 0002 6162",
        "02 26 00",
        "01 26",
        "02 ff 00",  # an identifier that does not exist
        "02 00 00",
        "02 7f 00",
        "03 80 01 00",  # an identifier of two bytes
        "04 a6 00 0000",  # 0x26 in two bytes
        "7f 26 0001 61 0001 62",  # a length beyond the packet
        "ff ff ff 7f",
        "80 00",  # a length of more bytes than it needs
        "87 00 26 0001 61 0001 62",
        "ff ff ff ff 01",
        "07 26 0001 ff 0001 62",  # not UTF-8
        "07 26 0001 61 0001 ff",
        "07 26 0001 00 0001 62",  # U+0000
        "09 26 0003 eda080 0001 62",  # a surrogate
        "06 26 0001 61 0001 62",  # the length ends within the property
    ],
)
async def test_malformed_properties(
    shared_gateway: GatewayProcess, packet_type: PacketType, properties: str
) -> None:
    """[MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.5-1] [MQTT-1.5.7-1] [MQTT-2.2.2-1] [MQTT-4.13.1-1]"""
    vector = raw(packet_type, bytes.fromhex(properties))
    assert await refusal(shared_gateway, vector) in (MALFORMED, PROTOCOL_ERROR)


@pytest.mark.parametrize(
    ("packet_type", "properties"),
    [
        (PacketType.CONNECT, "04 11 000000"),
        (PacketType.CONNECT, "02 21 00"),
        (PacketType.CONNECT, "01 17"),
        (PacketType.CONNECT, "04 27 000000"),
        (PacketType.PUBLISH, "01 01"),
        (PacketType.PUBLISH, "03 02 0000"),
        (PacketType.PUBLISH, "02 23 00"),
        (PacketType.PUBLISH, "03 08 0001"),
        (PacketType.PUBLISH, "04 08 0001 ff"),
        (PacketType.PUBLISH, "04 03 0001 ff"),
        (PacketType.PUBLISH, "03 09 0002"),
        (PacketType.SUBSCRIBE, "01 0b"),
        (PacketType.SUBSCRIBE, "02 0b 80"),
        (PacketType.SUBSCRIBE, "03 0b 80 00"),
        (PacketType.SUBSCRIBE, "06 0b ff ff ff ff 01"),
        (PacketType.DISCONNECT, "03 11 0000"),
        (PacketType.DISCONNECT, "04 1f 0001 ff"),
        (PacketType.PUBACK, "04 1f 0001 ff"),
    ],
)
async def test_malformed_values(
    shared_gateway: GatewayProcess, packet_type: PacketType, properties: str
) -> None:
    """[MQTT-3.3.2-13] [MQTT-3.3.2-19] [MQTT-1.5.4-1] [MQTT-1.5.5-1]: cut off, or no UTF-8."""
    end = b"x" if packet_type is PacketType.PUBLISH else b""
    vector = raw(packet_type, bytes.fromhex(properties), end)
    assert await refusal(shared_gateway, vector) in (MALFORMED, PROTOCOL_ERROR)


@pytest.mark.parametrize("packet_type", [PacketType.CONNECT, PacketType.WILL, PacketType.PUBLISH], ids=names)
async def test_user_properties_are_bounded(shared_gateway: GatewayProcess, packet_type: PacketType) -> None:
    """A thousand in a packet, and no more."""
    many = ((P.USER_PROPERTY, ("n", "v")),) * 1001
    assert await refusal(shared_gateway, with_properties(packet_type, *many)) == QUOTA_EXCEEDED
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(with_properties(PacketType.PUBLISH, *many[1:]))
        assert isinstance(await peer.receive(), Puback)


async def test_connect_is_bounded(shared_gateway: GatewayProcess) -> None:
    """Its properties as well: no CONNECT that is larger than all its fields at their longest is taken."""
    many = ((P.USER_PROPERTY, ("n" * 100, "v" * 900)),) * 400
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(Connect(properties=many))
        assert await peer.refusal() in (None, PACKET_TOO_LARGE)


@pytest.mark.parametrize("packet_type", [PacketType.WILL, *PACKETS], ids=names)
async def test_a_user_property_may_repeat(shared_gateway: GatewayProcess, packet_type: PacketType) -> None:
    """2.2.2.2: and all others are allowed at once, once each."""
    properties = [
        (identifier, value_of(identifier))
        for identifier, (_, places) in TABLE.items()
        if packet_type in places
        and identifier not in (P.AUTHENTICATION_METHOD, P.AUTHENTICATION_DATA, P.SUBSCRIPTION_IDENTIFIER)
        and (packet_type, identifier) != (PacketType.DISCONNECT, P.SERVER_REFERENCE)
        and (packet_type, identifier) != (PacketType.DISCONNECT, P.SESSION_EXPIRY_INTERVAL)
    ]
    again = ((P.USER_PROPERTY, ("name", "value")), (P.USER_PROPERTY, ("name", "")))
    packet = with_properties(packet_type, *properties, *again)
    if isinstance(packet, Connect):
        async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
            await peer.send(packet)
            assert (await peer.receive()).reason_code == 0  # type: ignore[union-attr]
        return
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(packet)
        if isinstance(packet, Disconnect):
            assert await peer.until_closed() == []
        else:
            assert not any(isinstance(each, Disconnect) for each in await peer.until_pingresp())
