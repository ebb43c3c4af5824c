"""The codec of these tests against paho's: the same tables, and the same bytes for the same packet."""

import itertools
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.reasoncodes import ReasonCode

from tests.support.mqtt5 import codec
from tests.support.mqtt5.packets import (
    Auth,
    Connack,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Unsuback,
)
from tests.support.mqtt5.properties import (
    TABLE,
    Kind,
    PacketType,
    Property,
    Reader,
    ViolationError,
    encode_properties,
    variable,
)

PAHO_TYPES = {packet_type: packet_type.value for packet_type in PacketType} | {
    PacketType.WILL: PacketTypes.WILLMESSAGE
}
PAHO_KINDS = {
    "Byte": Kind.BYTE,
    "Two Byte Integer": Kind.TWO_BYTES,
    "Four Byte Integer": Kind.FOUR_BYTES,
    "Variable Byte Integer": Kind.VARIABLE,
    "UTF-8 Encoded String": Kind.STRING,
    "Binary Data": Kind.BINARY,
    "UTF-8 String Pair": Kind.PAIR,
}
SAMPLES: dict[Kind, Any] = {
    Kind.BYTE: 1,
    Kind.TWO_BYTES: 0x1234,
    Kind.FOUR_BYTES: 0x02345678,
    Kind.VARIABLE: 0x1234,
    Kind.STRING: "text \u00fc",
    Kind.BINARY: b"\x00\xff",
    Kind.PAIR: ("name", "value"),
}
PAIRS = [(identifier, place) for identifier, (_, places) in TABLE.items() for place in places]


def test_the_properties_are_those_of_paho() -> None:
    known = PahoProperties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    ours = {
        identifier.value: (kind, {PAHO_TYPES[place] for place in places})
        for identifier, (kind, places) in TABLE.items()
    }
    theirs = {
        identifier: (PAHO_KINDS[known.types[kind]], set(places))
        for identifier, (kind, places) in known.properties.items()
    }
    assert ours == theirs


@pytest.mark.parametrize(("identifier", "place"), PAIRS)
def test_a_property_has_the_bytes_of_paho(identifier: Property, place: PacketType) -> None:
    value = SAMPLES[TABLE[identifier][0]]
    paho = PahoProperties(PAHO_TYPES[place])  # type: ignore[no-untyped-call]
    name = paho.getNameFromIdent(identifier.value)  # type: ignore[no-untyped-call]
    setattr(paho, name.replace(" ", ""), value)
    encoded = encode_properties([(identifier, value)])
    assert encoded == paho.pack()  # type: ignore[no-untyped-call]
    reader = Reader(encoded)
    assert reader.properties(place) == ((identifier, value),)
    assert not reader.left


@pytest.mark.parametrize(
    ("packet_type", "paho"),
    [
        (PacketType.CONNACK, PacketTypes.CONNACK),
        (PacketType.PUBACK, PacketTypes.PUBACK),
        (PacketType.PUBREC, PacketTypes.PUBREC),
        (PacketType.PUBREL, PacketTypes.PUBREL),
        (PacketType.PUBCOMP, PacketTypes.PUBCOMP),
        (PacketType.SUBACK, PacketTypes.SUBACK),
        (PacketType.UNSUBACK, PacketTypes.UNSUBACK),
    ],
)
def test_the_reason_codes_are_those_of_paho(packet_type: PacketType, paho: int) -> None:
    """DISCONNECT and AUTH are left out: paho's table has the codes of both directions.

    paho does not know 0x99, which table 3-1 has for a Will Payload that is not what its indicator says.
    """
    names = ReasonCode(paho, identifier=0).names
    theirs = {code for code, by_name in names.items() if any(paho in places for places in by_name.values())}
    missing = {0x99} if packet_type is PacketType.CONNACK else set()
    assert codec.REASON_CODES[packet_type] == theirs | missing


@pytest.mark.parametrize("value", [0, 127, 128, 16383, 16384, 2097151, 2097152, 268435455])
def test_variable_byte_integers(value: int) -> None:
    """[MQTT-1.5.5-1], table 1-1."""
    encoded = variable(value)
    assert Reader(encoded).variable() == value
    if len(encoded) < 4:
        with pytest.raises(ViolationError):
            Reader(encoded[:-1] + bytes([encoded[-1] | 0x80, 0])).variable()


REASON = ((Property.REASON_STRING, "why"), (Property.USER_PROPERTY, ("a", "b")))


@pytest.mark.parametrize(
    "packet",
    [
        Connack(True, 0, properties=((Property.ASSIGNED_CLIENT_IDENTIFIER, "id"),)),
        Connack(False, 0x87, properties=REASON),
        Publish("topic"),
        Publish("topic", b"payload", 2, 9, True, True),
        Publish("", b"payload", 1, 9, properties=((Property.TOPIC_ALIAS, 3),)),
        *(kind(7) for kind in (Puback, Pubrec, Pubrel, Pubcomp)),
        *(kind(7, 0x80, properties=REASON) for kind in (Puback, Pubrec)),
        *(kind(7, 0x92) for kind in (Pubrel, Pubcomp)),
        Suback(1, (0, 1, 2, 0x9E), properties=REASON),
        Unsuback(1, (0, 0x11)),
        Pingresp(),
        Disconnect(),
        Disconnect(0x8E, properties=REASON),
        Auth(0x18, properties=((Property.AUTHENTICATION_METHOD, "method"),)),
    ],
)
def test_what_is_encoded_is_decoded(packet: Packet) -> None:
    """And every part of it alone is not a packet."""
    encoded = codec.encode(packet)
    assert codec.decode(encoded + b"more") == (packet, len(encoded))
    for size in range(len(encoded)):
        assert codec.decode(encoded[:size]) == (None, 0)


@pytest.mark.parametrize(
    "vector",
    [
        "20 03 02 00 00",  # MQTT-3.2.2-1
        "20 03 01 87 00",  # MQTT-3.2.2-6
        "20 03 00 01 00",  # a return code of MQTT 3.1.1
        "30 05 0003 612f23 ",  # cut off, and a wildcard
        "40 03 0001 11",  # a reason code that PUBACK does not have
        "40 02 0000",  # MQTT-2.2.1-4
        "d0 01 00",
        "d1 00",
        "e0 07 00 05 11 00000001",  # MQTT-3.14.2-2
        "20 0b 00 00 08 21 0001 21 0001 24 01",  # a property twice
        "20 06 00 00 03 21 0000",  # Receive Maximum 0
    ],
)
def test_what_a_server_must_not_send_is_noticed(vector: str) -> None:
    """[MQTT-3.2.2-1] [MQTT-3.2.2-6] [MQTT-3.14.2-2]: all tests read with this codec."""
    with pytest.raises(ViolationError):
        codec.decode(bytes.fromhex(vector))


def test_every_packet_type_is_known() -> None:
    assert [packet_type.value for packet_type in itertools.islice(PacketType, 1, None)] == list(range(1, 16))
