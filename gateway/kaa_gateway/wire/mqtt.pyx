"""MQTT 3.1 and 3.1.1 packets: decoding from borrowed bytes, encoding into a Buffer. No session state lives here.

Decoders raise ProtocolError on a violation, with the reason that its metric counts, and say "need more bytes" with a
zero. `level` is the protocol level that CONNECT named, an argument wherever levels differ: MQTT 5 (level 5) will add
properties and reason codes at those places.

Source: MQTT Version 3.1.1 (OASIS Standard), whose section numbers the comments cite; MQTT V3.1 Protocol Specification.
"""

from typing import NamedTuple

from libc.string cimport memchr, memcmp, memcpy

from kaa_gateway.errors import ProtocolError

cdef enum:
    LEVEL_OF_OTHER_NAME = 0  # reported for a level that does not belong to the protocol name, and so is unknown


cdef int violation(str reason, str detail="") except -1:
    raise ProtocolError("mqtt_" + reason, detail)


# ---------------------------------------------------------------- decoding

cdef Py_ssize_t next_packet(const uint8_t* data, Py_ssize_t size, Py_ssize_t size_max, Packet* packet) except -1:
    """Cut the next packet out of a stream: the bytes it takes, or 0 if `size` bytes do not hold all of it yet.

    Hot path. `packet.body` borrows from `data`. A packet longer than `size_max` bytes is a violation as soon as its
    fixed header is seen, whether or not the rest ever comes (2.2.3; CVE-2017-7651).
    """
    cdef Py_ssize_t remaining = 0, at = 1
    cdef int shift = 0
    cdef uint8_t byte
    while True:
        if at >= size:
            return 0
        byte = data[at]
        at += 1
        remaining |= <Py_ssize_t>(byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 21:
            violation("malformed_remaining_length")
    if at + remaining > size_max:
        violation("packet_too_large", f"{at + remaining} bytes, at most {size_max}")
    if at + remaining > size:
        return 0
    packet.type = data[0] >> 4
    packet.flags = data[0] & 0x0F
    packet.body.data = data + at
    packet.body.size = remaining
    return at + remaining


cdef int check_flags(const Packet* packet, uint8_t level) except -1:
    """The reserved flags of every packet but PUBLISH (2.2.2). MQTT 3.1 left them open, and allowed DUP on some."""
    cdef uint8_t expected = 2 if packet.type in (PUBREL, SUBSCRIBE, UNSUBSCRIBE) else 0
    if packet.flags != expected and level != LEVEL_3_1:
        violation("reserved_flags")
    return 0


cdef Py_ssize_t take_field(const Slice* body, Py_ssize_t at, Slice* field) except -1:
    """A two-byte length and that many bytes (1.5.3), from offset `at` of the body; returns the offset behind them."""
    cdef Py_ssize_t size
    if body.size - at < 2:
        violation("truncated_field")
    size = body.data[at] << 8 | body.data[at + 1]
    at += 2
    if body.size - at < size:
        violation("truncated_field")
    field.data = body.data + at
    field.size = size
    return at + size


cdef int check_utf8(Slice field) except -1:
    """Well-formed UTF-8 without NUL and surrogates (1.5.3)."""
    cdef Py_ssize_t i
    cdef uint8_t seen = 0
    if field.size and memchr(field.data, 0, <size_t>field.size) != NULL:
        violation("nul_in_string")
    for i in range(field.size):
        seen |= field.data[i]
    if seen & 0x80:
        try:
            field.data[:field.size].decode("utf-8")
        except UnicodeDecodeError:
            violation("not_utf8")
    return 0


cdef int check_topic_name(Slice topic) except -1:
    """A topic name of PUBLISH or of a will: not empty, UTF-8, no wildcards (3.3.2.1, 4.7)."""
    if topic.size == 0:
        violation("empty_topic")
    if memchr(topic.data, c"+", topic.size) != NULL or memchr(topic.data, c"#", topic.size) != NULL:
        violation("wildcard_in_topic_name")
    return check_utf8(topic)


cdef int check_topic_filter(Slice topic_filter) except -1:
    """A topic filter: not empty, UTF-8, each wildcard alone in its level and `#` only at the end (4.7.1)."""
    cdef Py_ssize_t i, last = topic_filter.size - 1
    cdef const uint8_t* data = topic_filter.data
    if last < 0:
        violation("empty_topic_filter")
    for i in range(last + 1):
        if data[i] == c"#" and (i != last or (i > 0 and data[i - 1] != c"/")):
            violation("malformed_topic_filter")
        if data[i] == c"+" and ((i > 0 and data[i - 1] != c"/") or (i < last and data[i + 1] != c"/")):
            violation("malformed_topic_filter")
    return check_utf8(topic_filter)


cdef int read_connect(const Packet* packet, Connect* connect) except -1:
    """CONNECT (3.1). An unknown protocol level fills nothing but `level`, so that CONNACK can refuse it."""
    cdef Slice name
    cdef const Slice* body = &packet.body
    cdef uint8_t flags
    cdef Py_ssize_t at
    connect.level = LEVEL_3_1_1
    check_flags(packet, LEVEL_3_1_1)
    at = take_field(body, 0, &name)
    if not ((name.size == 4 and memcmp(name.data, b"MQTT", 4) == 0)
            or (name.size == 6 and memcmp(name.data, b"MQIsdp", 6) == 0)):
        violation("unknown_protocol_name")
    if body.size - at < 1:
        violation("truncated_field")
    connect.level = body.data[at]
    # Each level has its name (3.1.2.1); bit 7 of the level marks a bridge and is for brokers only.
    if connect.level != (LEVEL_3_1_1 if name.size == 4 else LEVEL_3_1):
        if connect.level in (LEVEL_3_1, LEVEL_3_1_1):
            connect.level = LEVEL_OF_OTHER_NAME
        return 0
    if body.size - at < 4:
        violation("truncated_field")
    flags = body.data[at + 1]
    connect.keep_alive = <uint16_t>(body.data[at + 2] << 8 | body.data[at + 3])
    at += 4
    if flags & 0x01:
        violation("reserved_connect_flag")
    connect.clean_session = flags & 0x02
    connect.will_qos = flags >> 3 & 0x03
    connect.will_retain = flags & 0x20
    if connect.will_qos == 3 or (not flags & 0x04 and flags & 0x38):
        violation("malformed_will_flags")
    if connect.level == LEVEL_3_1_1 and flags & 0x40 and not flags & 0x80:
        violation("password_without_user_name")
    at = take_field(body, at, &connect.client_id)
    check_utf8(connect.client_id)
    connect.will_topic = connect.will_message = connect.user_name = connect.password = Slice(NULL, 0)
    if flags & 0x04:
        at = take_field(body, at, &connect.will_topic)
        check_topic_name(connect.will_topic)
        at = take_field(body, at, &connect.will_message)
    # MQTT 3.1 section 3.1: a client may set the flag and leave the field out.
    if flags & 0x80 and not (connect.level == LEVEL_3_1 and at == body.size):
        at = take_field(body, at, &connect.user_name)
        check_utf8(connect.user_name)
    if flags & 0x40 and not (connect.level == LEVEL_3_1 and at == body.size):
        at = take_field(body, at, &connect.password)
    if at != body.size:
        violation("trailing_bytes")
    return 0


cdef int read_publish(const Packet* packet, uint8_t level, Publish* publish) except -1:
    """PUBLISH (3.3). Hot path: slices borrow from the packet; the caller checks a topic that it has not seen before."""
    cdef const uint8_t* data = packet.body.data
    cdef Py_ssize_t size = packet.body.size, at
    publish.qos = packet.flags >> 1 & 0x03
    publish.dup = packet.flags & 0x08
    publish.retain = packet.flags & 0x01
    if publish.qos == 3:
        violation("qos_3")
    if publish.dup and publish.qos == 0 and level != LEVEL_3_1:
        violation("dup_at_qos_0")
    if size < 2:
        violation("truncated_field")
    publish.topic.data = data + 2
    publish.topic.size = data[0] << 8 | data[1]
    at = 2 + publish.topic.size
    if at > size:
        violation("truncated_field")
    publish.packet_id = 0
    if publish.qos:
        if size - at < 2:
            violation("truncated_field")
        publish.packet_id = <uint16_t>(data[at] << 8 | data[at + 1])
        at += 2
        if publish.packet_id == 0:
            violation("packet_id_0")
    publish.payload.data = data + at
    publish.payload.size = size - at
    return 0


cdef int read_packet_id(const Packet* packet, uint8_t level) except -1:
    """The packet identifier of a packet that holds nothing else: PUBACK, PUBREC, PUBREL, PUBCOMP, UNSUBACK."""
    cdef int packet_id
    check_flags(packet, level)
    if packet.body.size != 2:
        violation("malformed_length")
    packet_id = packet.body.data[0] << 8 | packet.body.data[1]
    if packet_id == 0:
        violation("packet_id_0")
    return packet_id


cdef int read_empty(const Packet* packet) except -1:
    """A packet without a body: PINGREQ, PINGRESP, DISCONNECT."""
    check_flags(packet, LEVEL_3_1_1)
    if packet.body.size != 0:
        violation("malformed_length")
    return 0


cdef Py_ssize_t first_filter(const Packet* packet) except -1:
    """Check the head of a SUBSCRIBE or UNSUBSCRIBE (3.8, 3.10): the offset of its first topic filter."""
    if packet.body.size < 2:
        violation("truncated_field")
    if packet.body.data[0] == 0 and packet.body.data[1] == 0:
        violation("packet_id_0")
    if packet.body.size == 2:
        violation("no_topic_filter")
    return 2


cdef Py_ssize_t next_filter(const Packet* packet, Py_ssize_t at, TopicFilter* entry) except -1:
    """Read and check the entry at offset `at`, which is less than the body's size: the offset behind it."""
    at = take_field(&packet.body, at, &entry.filter)
    check_topic_filter(entry.filter)
    if packet.type == SUBSCRIBE:
        if at >= packet.body.size:
            violation("truncated_field")
        entry.qos = packet.body.data[at]
        if entry.qos > 2:
            violation("malformed_requested_qos")
        at += 1
    return at


# ---------------------------------------------------------------- encoding

cdef inline int remaining_length_size(Py_ssize_t remaining) noexcept nogil:
    return 1 if remaining < 128 else 2 if remaining < 16384 else 3 if remaining < 2097152 else 4


cdef inline uint8_t* put_fixed_header(uint8_t* at, uint8_t first, Py_ssize_t remaining) noexcept nogil:
    at[0] = first
    at += 1
    while remaining > 127:
        at[0] = <uint8_t>(remaining & 0x7F) | 0x80
        at += 1
        remaining >>= 7
    at[0] = <uint8_t>remaining
    return at + 1


cdef inline uint8_t* put_uint16(uint8_t* at, Py_ssize_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 8)
    at[1] = <uint8_t>value
    return at + 2


cdef inline uint8_t* put_field(uint8_t* at, const uint8_t* data, Py_ssize_t size) noexcept nogil:
    at = put_uint16(at, size)
    memcpy(at, data, <size_t>size)
    return at + size


cdef Py_ssize_t publish_size(Py_ssize_t topic_size, Py_ssize_t payload_size, uint8_t qos) noexcept nogil:
    """Bytes of a whole PUBLISH."""
    cdef Py_ssize_t remaining = 2 + topic_size + (2 if qos else 0) + payload_size
    return 1 + remaining_length_size(remaining) + remaining


cdef uint8_t* put_publish_head(
    uint8_t* at, uint8_t flags, Slice topic, uint16_t packet_id, Py_ssize_t payload_size
) noexcept nogil:
    """Write all of a PUBLISH before its payload; `flags` are those of the fixed header. Hot path."""
    cdef bint has_packet_id = flags & 0x06 != 0
    at = put_fixed_header(
        at, PUBLISH << 4 | flags, 2 + topic.size + (2 if has_packet_id else 0) + payload_size
    )
    at = put_field(at, topic.data, topic.size)
    if has_packet_id:
        at = put_uint16(at, packet_id)
    return at


cdef int append_publish(
    Buffer out, uint8_t level, uint8_t flags, Slice topic, uint16_t packet_id, Slice payload
) except -1:
    """PUBLISH; the caller has kept topic within 65535 bytes and the whole within the Remaining Length. Hot path."""
    cdef Py_ssize_t size = publish_size(topic.size, payload.size, flags >> 1 & 0x03)
    cdef uint8_t* at = put_publish_head(out.reserve(size), flags, topic, packet_id, payload.size)
    if payload.size:
        memcpy(at, payload.data, <size_t>payload.size)
    out.size += size
    return 0


cdef int append_ack(Buffer out, uint8_t packet_type, uint16_t packet_id) except -1:
    """PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK. Hot path."""
    cdef uint8_t* at = out.reserve(4)
    at[0] = packet_type << 4 | (2 if packet_type == PUBREL else 0)
    at[1] = 2
    put_uint16(at + 2, packet_id)
    out.size += 4
    return 0


cdef int append_connack(Buffer out, bint session_present, uint8_t return_code) except -1:
    """CONNACK (3.2)."""
    cdef uint8_t[4] packet = [CONNACK << 4, 2, session_present, return_code]
    return out.append(packet, 4)


cdef int append_suback(Buffer out, uint16_t packet_id, const uint8_t* return_codes, Py_ssize_t count) except -1:
    """SUBACK (3.9): a granted QoS, or 0x80, for each topic filter."""
    cdef uint8_t* at = out.reserve(FIXED_HEADER_SIZE_MAX + 2 + count)
    at = put_uint16(put_fixed_header(at, SUBACK << 4, 2 + count), packet_id)
    memcpy(at, return_codes, <size_t>count)
    out.size = at + count - out.data
    return 0


cdef int append_empty(Buffer out, uint8_t packet_type) except -1:
    """PINGREQ, PINGRESP or DISCONNECT."""
    cdef uint8_t[2] packet = [packet_type << 4, 0]
    return out.append(packet, 2)


# ---------------------------------------------------------------- the Python face: both directions of every packet

class Will(NamedTuple):
    """What the server publishes for a client that goes without a DISCONNECT (3.1.2.5)."""

    topic: str
    message: bytes
    qos: int = 0
    retain: bool = False


PyWill = Will


class PyConnect(NamedTuple):
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


class PyPublish(NamedTuple):
    """3.3; packet_id is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int = 0
    dup: bool = False
    retain: bool = False


class Puback(NamedTuple):
    """3.4."""

    packet_id: int


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


# The C structs have the plain names in this module's scope; Python sees the classes under them.
PyConnect.__name__ = PyConnect.__qualname__ = "Connect"
PyPublish.__name__ = PyPublish.__qualname__ = "Publish"
globals().update(
    Connect=PyConnect, Publish=PyPublish, LEVEL_3_1=LEVEL_3_1, LEVEL_3_1_1=LEVEL_3_1_1,
)

cdef dict ACK_CLASSES = {PUBACK: Puback, PUBREC: Pubrec, PUBREL: Pubrel, PUBCOMP: Pubcomp, UNSUBACK: Unsuback}
cdef dict EMPTY_CLASSES = {PINGREQ: Pingreq, PINGRESP: Pingresp, DISCONNECT: Disconnect}
cdef dict ACK_TYPES = {cls: packet_type for packet_type, cls in ACK_CLASSES.items()}
cdef dict EMPTY_TYPES = {cls: packet_type for packet_type, cls in EMPTY_CLASSES.items()}


cdef str text(Slice field):
    return None if field.data == NULL else field.data[:field.size].decode()


cdef bytes octets(Slice field):
    return None if field.data == NULL else field.data[:field.size]


cdef object connect_object(const Packet* packet):
    cdef Connect connect
    read_connect(packet, &connect)
    if connect.level not in (LEVEL_3_1, LEVEL_3_1_1):
        violation("unacceptable_protocol_version", str(connect.level))
    will = None
    if connect.will_topic.data != NULL:
        will = PyWill(
            text(connect.will_topic), octets(connect.will_message), connect.will_qos, bool(connect.will_retain)
        )
    return PyConnect(
        text(connect.client_id), bool(connect.clean_session), connect.keep_alive, will, text(connect.user_name),
        octets(connect.password), connect.level,
    )


cdef object publish_object(const Packet* packet, uint8_t level):
    cdef Publish publish
    read_publish(packet, level, &publish)
    check_topic_name(publish.topic)
    return PyPublish(
        text(publish.topic), octets(publish.payload), publish.qos, publish.packet_id, bool(publish.dup),
        bool(publish.retain),
    )


cdef object filters_object(const Packet* packet, uint8_t level):
    cdef TopicFilter entry
    cdef Py_ssize_t at
    check_flags(packet, level)
    at = first_filter(packet)
    filters = []
    while at < packet.body.size:
        at = next_filter(packet, at, &entry)
        filters.append((text(entry.filter), entry.qos) if packet.type == SUBSCRIBE else text(entry.filter))
    packet_id = packet.body.data[0] << 8 | packet.body.data[1]
    return (Subscribe if packet.type == SUBSCRIBE else Unsubscribe)(packet_id, tuple(filters))


def decode(const uint8_t[::1] data not None, uint8_t level=LEVEL_3_1_1, Py_ssize_t size_max=REMAINING_LENGTH_MAX):
    """The first packet of a stream and the bytes it took, or (None, 0) if it is not whole yet.

    Raises ProtocolError; never reads beyond `data`.
    """
    cdef Packet packet
    cdef const uint8_t* start = &data[0] if data.shape[0] else NULL
    cdef Py_ssize_t consumed = next_packet(start, data.shape[0], size_max, &packet)
    if consumed == 0:
        return None, 0
    if packet.type == CONNECT:
        return connect_object(&packet), consumed
    if packet.type == PUBLISH:
        return publish_object(&packet, level), consumed
    if packet.type in (SUBSCRIBE, UNSUBSCRIBE):
        return filters_object(&packet, level), consumed
    if packet.type in ACK_CLASSES:
        return ACK_CLASSES[packet.type](read_packet_id(&packet, level)), consumed
    if packet.type in EMPTY_CLASSES:
        read_empty(&packet)
        return EMPTY_CLASSES[packet.type](), consumed
    if packet.type == CONNACK:
        check_flags(&packet, level)
        if packet.body.size != 2 or packet.body.data[0] > 1:
            violation("malformed_connack")
        return Connack(bool(packet.body.data[0]), packet.body.data[1]), consumed
    if packet.type == SUBACK:
        check_flags(&packet, level)
        first_filter(&packet)
        packet_id = packet.body.data[0] << 8 | packet.body.data[1]
        return Suback(packet_id, tuple(packet.body.data[2:packet.body.size])), consumed
    violation("unknown_packet_type")


cdef int append_field(Buffer out, bytes value) except -1:
    if len(value) > 65535:
        raise ValueError(f"a field of {len(value)} bytes; MQTT has at most 65535")
    out.size = put_field(out.reserve(2 + len(value)), <const uint8_t*>value, len(value)) - out.data
    return 0


cdef int fitting_qos(qos) except -1:
    if qos not in (0, 1, 2):
        raise ValueError(f"QoS {qos}; MQTT has 0, 1 and 2")
    return qos


cdef int append_whole(Buffer out, uint8_t first, Buffer body) except -1:
    out.size = put_fixed_header(out.reserve(FIXED_HEADER_SIZE_MAX), first, body.size) - out.data
    return out.append(body.data, body.size)


cdef int append_connect(Buffer out, connect) except -1:
    cdef Buffer body = Buffer()
    cdef uint8_t head[4]
    cdef uint16_t keep_alive = connect.keep_alive
    cdef int flags = connect.clean_session << 1
    will = connect.will
    if will is not None:
        flags |= 0x04 | fitting_qos(will.qos) << 3 | will.retain << 5
    flags |= (connect.user_name is not None) << 7 | (connect.password is not None) << 6
    head[0] = connect.level
    head[1] = <uint8_t>flags
    put_uint16(&head[2], keep_alive)
    append_field(body, b"MQIsdp" if connect.level == LEVEL_3_1 else b"MQTT")
    body.append(head, 4)
    append_field(body, connect.client_id.encode())
    if will is not None:
        append_field(body, will.topic.encode())
        append_field(body, will.message)
    if connect.user_name is not None:
        append_field(body, connect.user_name.encode())
    if connect.password is not None:
        append_field(body, connect.password)
    return append_whole(out, CONNECT << 4, body)


cdef int append_filters(Buffer out, packet) except -1:
    cdef Buffer body = Buffer()
    cdef uint8_t[2] head
    cdef uint16_t packet_id = packet.packet_id
    cdef uint8_t requested
    put_uint16(head, packet_id)
    body.append(head, 2)
    subscribe = isinstance(packet, Subscribe)
    for entry in packet.topic_filters:
        if subscribe:
            append_field(body, entry[0].encode())
            requested = entry[1]
            body.append(&requested, 1)
        else:
            append_field(body, entry.encode())
    return append_whole(out, (SUBSCRIBE if subscribe else UNSUBSCRIBE) << 4 | 2, body)


def encode(packet not None, uint8_t level=LEVEL_3_1_1):
    """The bytes of a packet; ValueError or OverflowError if a field does not fit."""
    cdef Buffer out = Buffer()
    cdef bytes topic, codes
    cls = type(packet)
    if cls is PyPublish:
        topic = packet.topic.encode()
        if len(topic) > 65535:
            raise ValueError(f"a topic of {len(topic)} bytes; MQTT has at most 65535")
        payload = packet.payload
        if 2 + len(topic) + 2 + len(payload) > REMAINING_LENGTH_MAX:
            raise ValueError(f"a payload of {len(payload)} bytes; a packet has at most {REMAINING_LENGTH_MAX}")
        append_publish(
            out, level, packet.dup << 3 | fitting_qos(packet.qos) << 1 | packet.retain,
            Slice(<const uint8_t*>topic, len(topic)), packet.packet_id,
            Slice(<const uint8_t*><bytes?>payload, len(payload)),
        )
    elif cls is PyConnect:
        append_connect(out, packet)
    elif cls is Connack:
        append_connack(out, packet.session_present, packet.return_code)
    elif cls is Subscribe or cls is Unsubscribe:
        append_filters(out, packet)
    elif cls is Suback:
        codes = bytes(packet.return_codes)
        append_suback(out, packet.packet_id, <const uint8_t*>codes, len(codes))
    elif cls in ACK_TYPES:
        append_ack(out, ACK_TYPES[cls], packet.packet_id)
    else:
        append_empty(out, EMPTY_TYPES[cls])
    return out.copy()
