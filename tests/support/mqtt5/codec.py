"""The bytes of MQTT 5 packets: encodes what a client sends, legal or not, and reads strictly what a server sends.

Without I/O. What a server must not send raises ViolationError.

Source: MQTT 5.0 (OASIS Standard), chapters 2 and 3.
"""

from tests.support.mqtt5.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)  # fmt: skip
from tests.support.mqtt5.properties import (
    PacketType,
    Properties,
    Property,
    Reader,
    ViolationError,
    binary,
    encode_properties,
    string,
    variable,
)

Ack = Puback | Pubrec | Pubrel | Pubcomp

_ACKS: dict[PacketType, type[Ack]] = {
    PacketType.PUBACK: Puback,
    PacketType.PUBREC: Pubrec,
    PacketType.PUBREL: Pubrel,
    PacketType.PUBCOMP: Pubcomp,
}
_ACK_TYPES = {kind: packet_type for packet_type, kind in _ACKS.items()}

_PUBLISH_REFUSED = {0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99}
REASON_CODES: dict[PacketType, frozenset[int]] = {
    packet_type: frozenset(codes)
    for packet_type, codes in {
        PacketType.CONNACK: {0x00, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, *range(0x99, 0x9E), 0x9F},
        PacketType.PUBACK: {0x00, 0x10, *_PUBLISH_REFUSED},
        PacketType.PUBREC: {0x00, 0x10, *_PUBLISH_REFUSED},
        PacketType.PUBREL: {0x00, 0x92},
        PacketType.PUBCOMP: {0x00, 0x92},
        PacketType.SUBACK: {0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2},
        PacketType.UNSUBACK: {0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91},
        PacketType.DISCONNECT: {
            0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, *range(0x93, 0xA3),
        },
        PacketType.AUTH: {0x00, 0x18},
    }.items()
}  # fmt: skip
"""What a server may say, by packet: tables 3-1, 3-4 to 3-11, and the tables of 3.9.3 and 3.11.3."""


# ---------------------------------------------------------------- encoding


def packet(first: int, body: bytes) -> bytes:
    """Return a packet of any first byte and rest."""
    return bytes([first]) + variable(len(body)) + body


def _number(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _encode_connect(connect: Connect) -> bytes:
    will = connect.will
    flags = connect.clean_start << 1
    payload = string(connect.client_id)
    if will is not None:
        flags |= 0x04 | will.qos << 3 | will.retain << 5
        payload += encode_properties(will.properties) + string(will.topic) + binary(will.payload)
    if connect.user_name is not None:
        flags |= 0x80
        payload += string(connect.user_name)
    if connect.password is not None:
        flags |= 0x40
        payload += binary(connect.password)
    head = string("MQTT") + bytes([5, flags]) + _number(connect.keep_alive)
    return packet(0x10, head + encode_properties(connect.properties) + payload)


def _encode_publish(publish: Publish) -> bytes:
    flags = publish.dup << 3 | publish.qos << 1 | publish.retain
    identifier = _number(publish.packet_id) if publish.qos else b""
    body = string(publish.topic) + identifier + encode_properties(publish.properties) + publish.payload
    return packet(0x30 | flags, body)


def _with_reason(reason_code: int, properties: Properties) -> bytes:
    """Encode a reason code and properties, both left out if they say nothing (3.4.2.1, 3.14.2.1)."""
    if not reason_code and not properties:
        return b""
    return bytes([reason_code]) + (encode_properties(properties) if properties else b"")


def encode(sent: Packet) -> bytes:
    """Return the bytes of a packet."""
    properties = encode_properties(sent.properties)
    match sent:
        case Connect():
            return _encode_connect(sent)
        case Publish():
            return _encode_publish(sent)
        case Puback() | Pubrec() | Pubrel() | Pubcomp():
            packet_type = _ACK_TYPES[type(sent)]
            flags = 2 if packet_type is PacketType.PUBREL else 0
            body = _number(sent.packet_id) + _with_reason(sent.reason_code, sent.properties)
            return packet(packet_type << 4 | flags, body)
        case Subscribe():
            entries = b"".join(string(name) + bytes([options]) for name, options in sent.topic_filters)
            return packet(0x82, _number(sent.packet_id) + properties + entries)
        case Unsubscribe():
            entries = b"".join(string(name) for name in sent.topic_filters)
            return packet(0xA2, _number(sent.packet_id) + properties + entries)
        case Connack():
            return packet(0x20, bytes([sent.session_present, sent.reason_code]) + properties)
        case Suback():
            return packet(0x90, _number(sent.packet_id) + properties + bytes(sent.reason_codes))
        case Unsuback():
            return packet(0xB0, _number(sent.packet_id) + properties + bytes(sent.reason_codes))
        case Disconnect():
            return packet(0xE0, _with_reason(sent.reason_code, sent.properties))
        case Auth():
            return packet(0xF0, _with_reason(sent.reason_code, sent.properties))
        case Pingreq():
            return b"\xc0\x00"
        case Pingresp():
            return b"\xd0\x00"
    raise TypeError(f"{sent!r} is not a packet")


# ---------------------------------------------------------------- decoding


def decode(data: bytes) -> tuple[Packet | None, int]:
    """Return the server's next packet and its size; None and 0 if it is not complete."""
    length = 0
    for place in range(4):
        if place + 1 >= len(data):
            return None, 0
        byte = data[place + 1]
        length |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            if byte == 0 and place:
                raise ViolationError("MQTT-1.5.5-1: a Remaining Length of more bytes than it needs")
            break
    else:
        raise ViolationError("2.1.4: a Remaining Length of more than four bytes")
    start = place + 2
    if len(data) < start + length:
        return None, 0
    packet_type = PacketType(data[0] >> 4)
    reader = Reader(data[start : start + length])
    received = _decode_body(packet_type, data[0] & 0x0F, reader)
    if reader.left:
        raise ViolationError(f"{reader.left} bytes after the end of {packet_type.name}")
    return received, start + length


def _checked(packet_type: PacketType, reason_code: int) -> int:
    if reason_code not in REASON_CODES[packet_type]:
        raise ViolationError(f"2.4: reason code {reason_code:#04x} in {packet_type.name}")
    return reason_code


def _read_reason(packet_type: PacketType, reader: Reader) -> tuple[int, Properties]:
    reason_code = _checked(packet_type, reader.number(1)) if reader.left else 0
    return reason_code, reader.properties(packet_type) if reader.left else ()


def _read_codes(packet_type: PacketType, reader: Reader) -> tuple[int, ...]:
    codes = tuple(_checked(packet_type, code) for code in reader.rest())
    if not codes:
        raise ViolationError(f"3.9.3, 3.11.3: {packet_type.name} without a reason code")
    return codes


def _read_packet_id(reader: Reader) -> int:
    packet_id = reader.number(2)
    if packet_id == 0:
        raise ViolationError("MQTT-2.2.1-4: packet identifier 0")
    return packet_id


def _decode_publish(flags: int, reader: Reader) -> Publish:
    qos = flags >> 1 & 3
    if qos == 3 or (flags & 8 and qos == 0):
        raise ViolationError(f"MQTT-3.3.1-2, MQTT-3.3.1-4: flags {flags:#x} of PUBLISH")
    topic = reader.string()
    if "#" in topic or "+" in topic:
        raise ViolationError(f"MQTT-3.3.2-2: topic name {topic}")
    packet_id = _read_packet_id(reader) if qos else 0
    properties = reader.properties(PacketType.PUBLISH)
    if not topic and not any(identifier is Property.TOPIC_ALIAS for identifier, _ in properties):
        raise ViolationError("MQTT-4.7.3-1: neither topic name nor topic alias")
    return Publish(
        topic, reader.rest(), qos, packet_id, bool(flags & 8), bool(flags & 1), properties=properties
    )


def _decode_body(packet_type: PacketType, flags: int, reader: Reader) -> Packet:
    if packet_type is PacketType.PUBLISH:
        return _decode_publish(flags, reader)
    if flags != (2 if packet_type is PacketType.PUBREL else 0):
        raise ViolationError(f"MQTT-2.1.3-1: flags {flags:#x} of {packet_type.name}")
    match packet_type:
        case PacketType.CONNACK:
            present = reader.number(1)
            reason_code = _checked(packet_type, reader.number(1))
            if present > 1 or (present and reason_code):
                raise ViolationError("MQTT-3.2.2-1, MQTT-3.2.2-6: Session Present")
            return Connack(bool(present), reason_code, properties=reader.properties(packet_type))
        case PacketType.PUBACK | PacketType.PUBREC | PacketType.PUBREL | PacketType.PUBCOMP:
            packet_id = _read_packet_id(reader)
            reason_code, properties = _read_reason(packet_type, reader)
            return _ACKS[packet_type](packet_id, reason_code, properties=properties)
        case PacketType.SUBACK:
            packet_id, properties = _read_packet_id(reader), reader.properties(packet_type)
            return Suback(packet_id, _read_codes(packet_type, reader), properties=properties)
        case PacketType.UNSUBACK:
            packet_id, properties = _read_packet_id(reader), reader.properties(packet_type)
            return Unsuback(packet_id, _read_codes(packet_type, reader), properties=properties)
        case PacketType.PINGRESP:
            return Pingresp()
        case PacketType.DISCONNECT:
            reason_code, properties = _read_reason(packet_type, reader)
            if any(identifier is Property.SESSION_EXPIRY_INTERVAL for identifier, _ in properties):
                raise ViolationError("MQTT-3.14.2-2: Session Expiry Interval from a server")
            return Disconnect(reason_code, properties=properties)
        case PacketType.AUTH:
            reason_code, properties = _read_reason(packet_type, reader)
            return Auth(reason_code, properties=properties)
    raise ViolationError(f"2.1.2: a server sends no {packet_type.name}")
