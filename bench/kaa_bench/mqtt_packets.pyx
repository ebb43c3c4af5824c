"""MQTT packets as Python objects, for simulated devices and tests: both directions of every packet.

It knows the MQTT 5 properties that simulated devices use, and no others.

What the gateway reads or writes goes through its own codec (kaa_gateway.wire.mqtt), so that tests of these functions
test that codec. What only a client writes (CONNECT, SUBSCRIBE, UNSUBSCRIBE) or reads (CONNACK, SUBACK) is here.

Source: MQTT Version 3.1.1 (OASIS Standard), whose section numbers the docstrings cite; MQTT V3.1;
MQTT Version 5.0 (OASIS Standard).
"""

from typing import NamedTuple

from libc.stdint cimport uint8_t

from kaa_gateway.wire cimport mqtt
from kaa_gateway.wire.buffer cimport Buffer, Slice, to_bytes
from kaa_gateway.wire.mqtt_fields cimport check_topic_name
from kaa_gateway.wire.mqtt_properties cimport (
    CORRELATION_DATA, RESPONSE_TOPIC, TOPIC_ALIAS, TOPIC_ALIAS_MAXIMUM, Properties, append_text, append_uint16, has,
    take_properties, user_property,
)

from kaa_gateway.errors import ProtocolError

cdef enum:
    FIELD_SIZE_MAX = 65535  # bytes

LEVEL_3_1 = mqtt.LEVEL_3_1
LEVEL_3_1_1 = mqtt.LEVEL_3_1_1
LEVEL_5 = mqtt.LEVEL_5


class Will(NamedTuple):
    """What the server publishes for a client that goes without a DISCONNECT (3.1.2.5)."""

    topic: str
    message: bytes
    qos: int = 0
    retain: bool = False


class Connect(NamedTuple):
    """3.1; keep_alive in seconds."""

    client_id: str
    clean_session: bool = True
    keep_alive: int = 60
    will: Will | None = None
    user_name: str | None = None
    password: bytes | None = None
    level: int = LEVEL_3_1_1


class Connack(NamedTuple):
    """3.2."""

    session_present: bool
    return_code: int
    topic_alias_maximum: int = 0


class Publish(NamedTuple):
    """3.3; packet_id is 0 at QoS 0. `status_code` is the user property of that name of a response, 0 without one."""

    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int = 0
    dup: bool = False
    retain: bool = False
    topic_alias: int = 0
    response_topic: str | None = None
    correlation_data: bytes | None = None
    status_code: int = 0


class Puback(NamedTuple):
    """3.4."""

    packet_id: int
    reason_code: int = 0


class Pubrec(NamedTuple):
    """3.5."""

    packet_id: int


class Pubrel(NamedTuple):
    """3.6."""

    packet_id: int


class Pubcomp(NamedTuple):
    """3.7."""

    packet_id: int


class Subscribe(NamedTuple):
    """3.8: pairs of a topic filter and a requested QoS."""

    packet_id: int
    topic_filters: tuple


class Suback(NamedTuple):
    """3.9."""

    packet_id: int
    return_codes: tuple


class Unsubscribe(NamedTuple):
    """3.10."""

    packet_id: int
    topic_filters: tuple


class Unsuback(NamedTuple):
    """3.11."""

    packet_id: int


class Pingreq(NamedTuple):
    """3.12."""


class Pingresp(NamedTuple):
    """3.13."""


class Disconnect(NamedTuple):
    """3.14."""

    reason_code: int = 0


cdef dict ACK_CLASSES = {
    mqtt.PUBACK: Puback, mqtt.PUBREC: Pubrec, mqtt.PUBREL: Pubrel, mqtt.PUBCOMP: Pubcomp, mqtt.UNSUBACK: Unsuback,
}
cdef dict EMPTY_CLASSES = {mqtt.PINGREQ: Pingreq, mqtt.PINGRESP: Pingresp}
cdef dict ACK_TYPES = {cls: packet_type for packet_type, cls in ACK_CLASSES.items()}
cdef dict EMPTY_TYPES = {cls: packet_type for packet_type, cls in EMPTY_CLASSES.items()}


cdef int violation(str reason, str detail="") except -1:
    raise ProtocolError("mqtt_" + reason, detail)


# ---------------------------------------------------------------- decoding

cdef str text(Slice field):
    return None if field.data == NULL else field.data[:field.size].decode()


cdef object decode_connect(const mqtt.Packet* packet):
    cdef mqtt.ConnectView connect
    mqtt.read_connect(packet, &connect)
    if connect.level not in (mqtt.LEVEL_3_1, mqtt.LEVEL_3_1_1, mqtt.LEVEL_5):
        violation("unacceptable_protocol_version", str(connect.level))
    will = None
    if connect.will_topic.data != NULL:
        will = Will(
            text(connect.will_topic), to_bytes(connect.will_message), connect.will_qos, bool(connect.will_retain)
        )
    return Connect(
        text(connect.client_id), bool(connect.clean_session), connect.keep_alive, will, text(connect.user_name),
        to_bytes(connect.password), connect.level,
    )


cdef object decode_publish(const mqtt.Packet* packet, uint8_t level):
    cdef mqtt.PublishView publish
    cdef Properties* properties = &publish.properties
    cdef Slice status
    mqtt.read_publish(packet, level, &publish)
    if publish.topic.size or level < mqtt.LEVEL_5:
        check_topic_name(publish.topic)
    if level < mqtt.LEVEL_5:
        return Publish(
            text(publish.topic), to_bytes(publish.payload), publish.qos, publish.packet_id, bool(publish.dup),
            bool(publish.retain),
        )
    status = user_property(properties, b"statusCode")
    return Publish(
        text(publish.topic), to_bytes(publish.payload), publish.qos, publish.packet_id, bool(publish.dup),
        bool(publish.retain), properties.number[<int>TOPIC_ALIAS] if has(properties, TOPIC_ALIAS) else 0,
        text(properties.text[<int>RESPONSE_TOPIC]) if has(properties, RESPONSE_TOPIC) else None,
        to_bytes(properties.text[<int>CORRELATION_DATA]) if has(properties, CORRELATION_DATA) else None,
        status_of(status),
    )


cdef int status_of(Slice digits) except -1:
    """Return a status code in decimal, 0 if it is none."""
    cdef bytes value = to_bytes(digits)
    return int(value) if value is not None and len(value) == 3 and value.isdigit() else 0


cdef object decode_filters(const mqtt.Packet* packet, uint8_t level):
    cdef mqtt.TopicFilter entry
    cdef Properties properties
    cdef Py_ssize_t at
    mqtt.check_flags(packet, level)
    at = mqtt.first_filter(packet, level, &properties)
    filters = []
    while at < packet.body.size:
        at = mqtt.next_filter(packet, level, at, &entry)
        filters.append((text(entry.filter), entry.qos) if packet.type == mqtt.SUBSCRIBE else text(entry.filter))
    packet_id = packet.body.data[0] << 8 | packet.body.data[1]
    return (Subscribe if packet.type == mqtt.SUBSCRIBE else Unsubscribe)(packet_id, tuple(filters))


cdef object decode_connack(const mqtt.Packet* packet, uint8_t level):
    cdef Properties properties
    mqtt.check_flags(packet, level)
    if packet.body.size < 2 or packet.body.data[0] > 1 or (level < mqtt.LEVEL_5 and packet.body.size != 2):
        violation("malformed_connack")
    if level < mqtt.LEVEL_5 or packet.body.size == 2:  # the CONNACK of another version, to refuse this one
        return Connack(bool(packet.body.data[0]), packet.body.data[1])
    if take_properties(&packet.body, 2, mqtt.CONNACK, &properties) != packet.body.size:
        violation("trailing_bytes")
    return Connack(
        bool(packet.body.data[0]), packet.body.data[1],
        properties.number[<int>TOPIC_ALIAS_MAXIMUM] if has(&properties, TOPIC_ALIAS_MAXIMUM) else 0,
    )


cdef object decode_suback(const mqtt.Packet* packet, uint8_t level):
    cdef Properties properties
    mqtt.check_flags(packet, level)
    cdef Py_ssize_t at = mqtt.first_filter(packet, level, &properties)
    packet_id = packet.body.data[0] << 8 | packet.body.data[1]
    return Suback(packet_id, tuple(packet.body.data[at:packet.body.size]))


cdef object decode_ack(const mqtt.Packet* packet, uint8_t level):
    """Decode a PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK. Keep the reason code of PUBACK only."""
    cdef Properties properties
    cdef uint8_t reason_code = 0
    if packet.type == mqtt.UNSUBACK and level >= mqtt.LEVEL_5:
        mqtt.check_flags(packet, level)
        mqtt.first_filter(packet, level, &properties)
        return Unsuback(packet.body.data[0] << 8 | packet.body.data[1])
    packet_id = mqtt.read_packet_id(packet, level, &reason_code)
    return Puback(packet_id, reason_code) if packet.type == mqtt.PUBACK else ACK_CLASSES[packet.type](packet_id)


cdef object decode_disconnect(const mqtt.Packet* packet, uint8_t level):
    """Decode a DISCONNECT. Its properties are not looked at."""
    if level < mqtt.LEVEL_5:
        mqtt.read_empty(packet, level)
        return Disconnect()
    mqtt.check_flags(packet, level)
    return Disconnect(packet.body.data[0] if packet.body.size else 0)


def decode(
    const uint8_t[::1] data not None, uint8_t level=mqtt.LEVEL_3_1_1, Py_ssize_t size_max=mqtt.REMAINING_LENGTH_MAX
):
    """Return the first packet of a stream and the bytes that it took, or (None, 0) if it is not complete.

    Raises ProtocolError; never reads beyond `data`.
    """
    cdef mqtt.Packet packet
    cdef const uint8_t* start = &data[0] if data.shape[0] else NULL
    cdef Py_ssize_t consumed = mqtt.next_packet(start, data.shape[0], size_max, &packet)
    if consumed == 0:
        return None, 0
    if packet.type == mqtt.CONNECT:
        return decode_connect(&packet), consumed
    if packet.type == mqtt.PUBLISH:
        return decode_publish(&packet, level), consumed
    if packet.type in (mqtt.SUBSCRIBE, mqtt.UNSUBSCRIBE):
        return decode_filters(&packet, level), consumed
    if packet.type in ACK_CLASSES:
        return decode_ack(&packet, level), consumed
    if packet.type in EMPTY_CLASSES:
        mqtt.read_empty(&packet, level)
        return EMPTY_CLASSES[packet.type](), consumed
    if packet.type == mqtt.CONNACK:
        return decode_connack(&packet, level), consumed
    if packet.type == mqtt.SUBACK:
        return decode_suback(&packet, level), consumed
    if packet.type == mqtt.DISCONNECT:
        return decode_disconnect(&packet, level), consumed
    violation("unknown_packet_type")


# ---------------------------------------------------------------- encoding

cdef bytes number(value, Py_ssize_t size):
    """Encode an unsigned integer, most significant byte first; OverflowError if it does not fit."""
    return int(value).to_bytes(size, "big")


cdef bytes field(bytes value):
    """Encode a field with its two-byte length (1.5.3)."""
    if len(value) > FIELD_SIZE_MAX:
        raise ValueError(f"a field of {len(value)} bytes; MQTT has at most 65535")
    return number(len(value), 2) + value


cdef int checked_qos(qos) except -1:
    if qos not in (0, 1, 2):
        raise ValueError(f"QoS {qos}; MQTT has 0, 1 and 2")
    return qos


cdef bytes whole(uint8_t first, bytes body):
    """Put the fixed header before the rest of a packet (2.2)."""
    header = bytearray([first])
    remaining = len(body)
    while remaining > 0x7F:
        header.append(remaining & 0x7F | 0x80)
        remaining >>= 7
    header.append(remaining)
    return bytes(header) + body


cdef bytes encode_connect(connect):
    cdef int flags = connect.clean_session << 1
    will = connect.will
    if will is not None:
        flags |= 0x04 | checked_qos(will.qos) << 3 | will.retain << 5
    flags |= (connect.user_name is not None) << 7 | (connect.password is not None) << 6
    no_properties = b"\0" if connect.level >= LEVEL_5 else b""
    fields = [field(connect.client_id.encode())]
    if will is not None:
        fields += [no_properties, field(will.topic.encode()), field(will.message)]
    if connect.user_name is not None:
        fields.append(field(connect.user_name.encode()))
    if connect.password is not None:
        fields.append(field(connect.password))
    name = b"MQIsdp" if connect.level == LEVEL_3_1 else b"MQTT"
    head = field(name) + number(connect.level, 1) + number(flags, 1) + number(connect.keep_alive, 2)
    return whole(mqtt.CONNECT << 4, head + no_properties + b"".join(fields))


cdef bytes encode_filters(packet, uint8_t level, uint8_t packet_type, entries):
    """Encode a SUBSCRIBE or UNSUBSCRIBE with these entries."""
    head = number(packet.packet_id, 2) + (b"\0" if level >= mqtt.LEVEL_5 else b"")
    return whole(packet_type << 4 | 2, head + b"".join(entries))


cdef int append_publish(Buffer out, uint8_t level, packet) except -1:
    cdef bytes topic = packet.topic.encode(), payload = packet.payload, response_topic, data
    cdef Buffer properties = Buffer()
    if len(topic) > FIELD_SIZE_MAX:
        raise ValueError(f"a topic of {len(topic)} bytes; MQTT has at most 65535")
    if 2 + len(topic) + 2 + len(payload) > mqtt.REMAINING_LENGTH_MAX:
        raise ValueError(f"a payload of {len(payload)} bytes; a packet has at most {mqtt.REMAINING_LENGTH_MAX}")
    if level >= mqtt.LEVEL_5:
        if packet.topic_alias:
            append_uint16(properties, TOPIC_ALIAS, packet.topic_alias)
        if packet.response_topic is not None:
            response_topic = packet.response_topic.encode()
            append_text(properties, RESPONSE_TOPIC, Slice(<const uint8_t*>response_topic, len(response_topic)))
        if packet.correlation_data is not None:
            data = packet.correlation_data
            append_text(properties, CORRELATION_DATA, Slice(<const uint8_t*>data, len(data)))
    return mqtt.append_publish(
        out, level, packet.dup << 3 | checked_qos(packet.qos) << 1 | packet.retain,
        Slice(<const uint8_t*>topic, len(topic)), packet.packet_id,
        Slice(properties.data, properties.size), Slice(<const uint8_t*>payload, len(payload)),
    )


def encode(packet not None, uint8_t level=mqtt.LEVEL_3_1_1):
    """Return the bytes of a packet; ValueError or OverflowError if a field does not fit."""
    cdef Buffer out = Buffer()
    cdef bytes codes
    cls = type(packet)
    if cls is Connect:
        return encode_connect(packet)
    if cls is Subscribe:
        entries = [field(name.encode()) + number(qos, 1) for name, qos in packet.topic_filters]
        return encode_filters(packet, level, mqtt.SUBSCRIBE, entries)
    if cls is Unsubscribe:
        return encode_filters(packet, level, mqtt.UNSUBSCRIBE, [field(name.encode()) for name in packet.topic_filters])
    if cls is Publish:
        append_publish(out, level, packet)
    elif cls is Connack:
        mqtt.append_connack(out, level, packet.session_present, packet.return_code, Slice(NULL, 0))
    elif cls is Suback:
        codes = bytes(packet.return_codes)
        mqtt.append_filter_ack(out, level, mqtt.SUBACK, packet.packet_id, <const uint8_t*>codes, len(codes))
    elif cls is Puback and level >= mqtt.LEVEL_5 and packet.reason_code:
        mqtt.append_ack_with_reason(out, mqtt.PUBACK, packet.packet_id, packet.reason_code, Slice(NULL, 0))
    elif cls in ACK_TYPES:
        mqtt.append_ack(out, ACK_TYPES[cls], packet.packet_id)
    elif cls is Disconnect:
        if level >= mqtt.LEVEL_5 and packet.reason_code:
            mqtt.append_disconnect(out, packet.reason_code, Slice(NULL, 0))
        else:
            mqtt.append_empty(out, mqtt.DISCONNECT)
    else:
        mqtt.append_empty(out, EMPTY_TYPES[cls])
    return out.copy()
