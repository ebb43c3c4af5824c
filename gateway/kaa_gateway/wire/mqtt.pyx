"""Decode and encode the packets of MQTT 3.1 and 3.1.1: from borrowed bytes, into a Buffer.

No session state lives here. A decoder raises ProtocolError on a violation, with the reason that the metrics count;
`next_packet` returns 0 when it needs more bytes. `level` is the protocol level of the connection's CONNECT; functions
take it wherever levels differ, so that another level changes no signature.

Source: MQTT Version 3.1.1 (OASIS Standard), whose section numbers the comments cite; MQTT V3.1 Protocol Specification.
"""

from libc.string cimport memchr, memcmp, memcpy

from kaa_gateway.errors import ProtocolError

cdef enum:
    LEVEL_OF_OTHER_NAME = 0  # what a CONNECT has whose level does not belong to its protocol name

cdef const char* NAME_3_1 = b"\x00\x06MQIsdp"


cdef int violation(str reason, str detail="") except -1:
    raise ProtocolError("mqtt_" + reason, detail)


# ---------------------------------------------------------------- decoding

cdef Py_ssize_t next_packet(const uint8_t* data, Py_ssize_t size, Py_ssize_t size_max, Packet* packet) except -1:
    """Cut the next packet out of a stream. Return the bytes that it takes, or 0 if `data` does not hold all of it.

    Hot path. `packet.body` borrows from `data`. A packet longer than `size_max` bytes is a violation as soon as its
    fixed header is complete, before the rest has come (2.2.3; CVE-2017-7651).
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


cdef bint can_be_connect(const uint8_t* data, Py_ssize_t size) noexcept nogil:
    """Return whether a stream that begins with these bytes, at least one, can begin with a CONNECT (3.1).

    Flags in the fixed header are those of MQTT 3.1, which ignores them, and so only its protocol name may follow.
    """
    cdef Py_ssize_t at = 1
    if data[0] == CONNECT << 4:
        return True
    if data[0] >> 4 != CONNECT:
        return False
    while at < size and at < FIXED_HEADER_SIZE_MAX and data[at] & 0x80:
        at += 1
    at += 1
    return at >= size or memcmp(data + at, NAME_3_1, <size_t>min(size - at, 8)) == 0


cdef int check_flags(const Packet* packet, uint8_t level) except -1:
    """Check the reserved flags of a packet other than PUBLISH (2.2.2). MQTT 3.1 does not reserve them."""
    cdef uint8_t expected = 2 if packet.type in (PUBREL, SUBSCRIBE, UNSUBSCRIBE) else 0
    if packet.flags != expected and level != LEVEL_3_1:
        violation("reserved_flags")
    return 0


cdef Py_ssize_t take_field(const Slice* body, Py_ssize_t at, Slice* field) except -1:
    """Read a field with a two-byte length (1.5.3) at offset `at` of a body. Return the offset behind it."""
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
    """Check that a field is well-formed UTF-8 without NUL and surrogates (1.5.3)."""
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
    """Check a topic name of a PUBLISH or a will: not empty, UTF-8, no wildcards (3.3.2.1, 4.7)."""
    if topic.size == 0:
        violation("empty_topic")
    if memchr(topic.data, c"+", topic.size) != NULL or memchr(topic.data, c"#", topic.size) != NULL:
        violation("wildcard_in_topic_name")
    return check_utf8(topic)


cdef int check_topic_filter(Slice topic_filter) except -1:
    """Check a topic filter: not empty, UTF-8, each wildcard alone in its level, `#` only at the end (4.7.1)."""
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


cdef int read_connect(const Packet* packet, ConnectView* connect) except -1:
    """Read a CONNECT (3.1). Of an unknown protocol level only `level` is set, so that a CONNACK can refuse it."""
    cdef Slice name
    cdef const Slice* body = &packet.body
    cdef uint8_t flags
    cdef Py_ssize_t at
    connect.level = LEVEL_3_1_1
    at = take_field(body, 0, &name)
    if not ((name.size == 4 and memcmp(name.data, b"MQTT", 4) == 0)
            or (name.size == 6 and memcmp(name.data, b"MQIsdp", 6) == 0)):
        violation("unknown_protocol_name")
    # MQTT 3.1 (sections 2.1, 3.1) ignores the flags of the fixed header and bit 0 of the connect flags.
    check_flags(packet, LEVEL_3_1_1 if name.size == 4 else LEVEL_3_1)
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
    if flags & 0x01 and connect.level != LEVEL_3_1:
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


cdef int read_publish(const Packet* packet, uint8_t level, PublishView* publish) except -1:
    """Read a PUBLISH (3.3). Hot path. Slices borrow from the packet; the topic is for the caller to check."""
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
    """Read a packet that holds only a packet identifier: PUBACK, PUBREC, PUBREL, PUBCOMP, UNSUBACK."""
    cdef int packet_id
    check_flags(packet, level)
    if packet.body.size != 2:
        violation("malformed_length")
    packet_id = packet.body.data[0] << 8 | packet.body.data[1]
    if packet_id == 0:
        violation("packet_id_0")
    return packet_id


cdef int read_empty(const Packet* packet, uint8_t level) except -1:
    """Check a packet without a body: PINGREQ, PINGRESP, DISCONNECT."""
    check_flags(packet, level)
    if packet.body.size != 0:
        violation("malformed_length")
    return 0


cdef Py_ssize_t first_filter(const Packet* packet) except -1:
    """Check the head of a SUBSCRIBE or UNSUBSCRIBE (3.8, 3.10). Return the offset of its first topic filter."""
    if packet.body.size < 2:
        violation("truncated_field")
    if packet.body.data[0] == 0 and packet.body.data[1] == 0:
        violation("packet_id_0")
    if packet.body.size == 2:
        violation("no_topic_filter")
    return 2


cdef Py_ssize_t next_filter(const Packet* packet, Py_ssize_t at, TopicFilter* entry) except -1:
    """Read the topic filter at offset `at`, which is within the body. Return the offset behind it."""
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
    """Return the bytes of a whole PUBLISH."""
    cdef Py_ssize_t remaining = 2 + topic_size + (2 if qos else 0) + payload_size
    return 1 + remaining_length_size(remaining) + remaining


cdef uint8_t* put_publish_head(
    uint8_t* at, uint8_t flags, Slice topic, uint16_t packet_id, Py_ssize_t payload_size
) noexcept nogil:
    """Write a PUBLISH up to its payload, and return where the payload goes. Hot path.

    `flags` are those of the fixed header; `at` has room for `publish_size` bytes.
    """
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
    """Append a PUBLISH. Hot path. The caller bounds the topic (65,535 bytes) and the whole (the Remaining Length)."""
    cdef Py_ssize_t size = publish_size(topic.size, payload.size, flags >> 1 & 0x03)
    cdef uint8_t* at = put_publish_head(out.reserve(size), flags, topic, packet_id, payload.size)
    if payload.size:
        memcpy(at, payload.data, <size_t>payload.size)
    out.size += size
    return 0


cdef int append_ack(Buffer out, uint8_t packet_type, uint16_t packet_id) except -1:
    """Append a PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK. Hot path."""
    cdef uint8_t* at = out.reserve(4)
    at[0] = packet_type << 4 | (2 if packet_type == PUBREL else 0)
    at[1] = 2
    put_uint16(at + 2, packet_id)
    out.size += 4
    return 0


cdef int append_connack(Buffer out, bint session_present, uint8_t return_code) except -1:
    """Append a CONNACK (3.2)."""
    cdef uint8_t[4] packet = [CONNACK << 4, 2, session_present, return_code]
    return out.append(packet, 4)


cdef int append_suback(Buffer out, uint16_t packet_id, const uint8_t* return_codes, Py_ssize_t count) except -1:
    """Append a SUBACK (3.9): a granted QoS, or 0x80, for each topic filter."""
    cdef uint8_t* at = out.reserve(FIXED_HEADER_SIZE_MAX + 2 + count)
    at = put_uint16(put_fixed_header(at, SUBACK << 4, 2 + count), packet_id)
    memcpy(at, return_codes, <size_t>count)
    out.size = at + count - out.data
    return 0


cdef int append_empty(Buffer out, uint8_t packet_type) except -1:
    """Append a PINGREQ, PINGRESP or DISCONNECT."""
    cdef uint8_t[2] packet = [packet_type << 4, 0]
    return out.append(packet, 2)
