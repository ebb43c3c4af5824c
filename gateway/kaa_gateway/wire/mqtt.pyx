"""Decode and encode the packets of MQTT 3.1, 3.1.1 and 5: from borrowed bytes, into a Buffer.

No session state lives here. A decoder raises ProtocolError on a violation, with the reason that the metrics count;
`next_packet` returns 0 when it needs more bytes. `level` is the protocol level of the connection's CONNECT; functions
take it wherever levels differ. What lives elsewhere: fields (mqtt_fields.pyx), properties (mqtt_properties.pyx).

Source: MQTT Version 3.1.1 and MQTT Version 5.0 (OASIS Standards); MQTT V3.1 Protocol Specification. Comments cite
sections of 3.1.1, or of 5 where they say so.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy

from kaa_gateway.wire.mqtt_fields cimport (
    check_topic_filter, check_topic_name, check_utf8, put_uint16, put_variable, take_field, variable_size, violation,
)
from kaa_gateway.wire.mqtt_properties cimport OF_WILL, TOPIC_ALIAS, take_properties

cdef enum:
    ALIAS_ALONE_SIZE = 4     # bytes of properties that are one Topic Alias, with their length
    LEVEL_OF_OTHER_NAME = 0  # what a CONNECT has whose level does not belong to its protocol name

cdef const char* NAME_3_1 = b"\x00\x06MQIsdp"

# MQTT 5: the reason codes that a client may send in an acknowledgement of ours (3.4.2.1, 3.5.2.1), in PUBREL and
# PUBCOMP (3.6.2.1, 3.7.2.1), and in DISCONNECT (3.14.2.1).
cdef frozenset CODES_OF_ACKS = frozenset((0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99))
cdef frozenset CODES_OF_RELEASES = frozenset((0x00, 0x92))
cdef frozenset CODES_OF_DISCONNECT = frozenset(
    (0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99)
)


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


cdef Py_ssize_t missing_bytes(const uint8_t* data, Py_ssize_t size) noexcept nogil:
    """Return how many bytes an incomplete packet lacks, or 1 as long as its fixed header does not tell."""
    cdef Py_ssize_t remaining = 0, at = 1
    cdef int shift = 0
    while at < size and shift <= 21:
        remaining |= <Py_ssize_t>(data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return max(at + remaining - size, <Py_ssize_t>1)
        shift += 7
    return 1


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
    if not (connect.level in (LEVEL_3_1_1, LEVEL_5) if name.size == 4 else connect.level == LEVEL_3_1):
        if connect.level in (LEVEL_3_1, LEVEL_3_1_1, LEVEL_5):
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
    connect.properties.present = connect.will_properties.present = 0
    connect.properties.user_property_count = connect.will_properties.user_property_count = 0
    if connect.level >= LEVEL_5:
        at = take_properties(body, at, CONNECT, &connect.properties)
    at = take_field(body, at, &connect.client_id)
    check_utf8(connect.client_id)
    connect.will_topic = connect.will_message = connect.user_name = connect.password = Slice(NULL, 0)
    if flags & 0x04:
        if connect.level >= LEVEL_5:
            at = take_properties(body, at, OF_WILL, &connect.will_properties)
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
    publish.properties.present = 0
    if level >= LEVEL_5:
        if size - at >= ALIAS_ALONE_SIZE and data[at] == ALIAS_ALONE_SIZE - 1 and data[at + 1] == TOPIC_ALIAS:
            # A Topic Alias alone, which is what a client sends that wants its messages to cost little.
            publish.properties.present = 1ULL << <int>TOPIC_ALIAS
            publish.properties.number[<int>TOPIC_ALIAS] = <uint32_t>data[at + 2] << 8 | data[at + 3]
            publish.properties.encoded = Slice(data + at + 1, ALIAS_ALONE_SIZE - 1)
            publish.properties.user_property_count = 0
            at += ALIAS_ALONE_SIZE
        else:
            at = take_properties(&packet.body, at, PUBLISH, &publish.properties)
    publish.payload.data = data + at
    publish.payload.size = size - at
    return 0


cdef int read_packet_id(const Packet* packet, uint8_t level, uint8_t* reason_code) except -1:
    """Read a PUBACK, PUBREC, PUBREL or PUBCOMP: return its packet identifier, and set its reason code.

    Of a level below 5, the reason code is 0. Reason String and user properties are checked and ignored.
    """
    cdef int packet_id
    cdef Properties properties
    check_flags(packet, level)
    reason_code[0] = SUCCESS
    if packet.body.size != 2 and (level < LEVEL_5 or packet.body.size < 2):
        violation("malformed_length")
    packet_id = packet.body.data[0] << 8 | packet.body.data[1]
    if packet_id == 0:
        violation("packet_id_0")
    if packet.body.size > 2:
        reason_code[0] = packet.body.data[2]
        if reason_code[0] not in (CODES_OF_ACKS if packet.type in (PUBACK, PUBREC) else CODES_OF_RELEASES):
            violation("reason_code")
        read_last_properties(packet, 3, &properties)
    return packet_id


cdef int read_last_properties(const Packet* packet, Py_ssize_t at, Properties* properties) except -1:
    """Read the properties that end a packet, and may be left out."""
    properties.present = 0
    properties.user_property_count = 0
    if at < packet.body.size and take_properties(&packet.body, at, packet.type, properties) != packet.body.size:
        violation("trailing_bytes")
    return 0


cdef int read_empty(const Packet* packet, uint8_t level) except -1:
    """Check a packet without a body: PINGREQ, PINGRESP."""
    check_flags(packet, level)
    if packet.body.size != 0:
        violation("malformed_length")
    return 0


cdef int read_disconnect(const Packet* packet, uint8_t level, DisconnectView* disconnect) except -1:
    """Read a client's DISCONNECT (3.14), which has no body below level 5."""
    disconnect.reason_code = SUCCESS
    disconnect.properties.present = 0
    if level < LEVEL_5:
        return read_empty(packet, level)
    check_flags(packet, level)
    if packet.body.size:
        disconnect.reason_code = packet.body.data[0]
        if disconnect.reason_code not in CODES_OF_DISCONNECT:
            violation("reason_code")
        read_last_properties(packet, 1, &disconnect.properties)
    return 0


cdef Py_ssize_t first_filter(const Packet* packet, uint8_t level, Properties* properties) except -1:
    """Check the head of a SUBSCRIBE or UNSUBSCRIBE (3.8, 3.10). Return the offset of its first topic filter."""
    cdef Py_ssize_t at = 2
    if packet.body.size < 2:
        violation("truncated_field")
    if packet.body.data[0] == 0 and packet.body.data[1] == 0:
        violation("packet_id_0")
    properties.present = 0
    if level >= LEVEL_5:
        at = take_properties(&packet.body, at, packet.type, properties)
    if packet.body.size == at:
        violation("no_topic_filter")
    return at


cdef Py_ssize_t next_filter(const Packet* packet, uint8_t level, Py_ssize_t at, TopicFilter* entry) except -1:
    """Read the topic filter at offset `at`, which is within the body. Return the offset behind it."""
    cdef uint8_t options
    at = take_field(&packet.body, at, &entry.filter)
    check_topic_filter(entry.filter)
    if packet.type == SUBSCRIBE:
        if at >= packet.body.size:
            violation("truncated_field")
        options = packet.body.data[at]
        if level >= LEVEL_5:
            # MQTT 5, 3.8.3.1: bits 6 and 7 are reserved, and Retain Handling is not 3.
            if options & 0xC0:
                violation("reserved_subscription_options")
            if options & 0x30 == 0x30:
                violation("retain_handling")
            entry.no_local = options & 0x04
            options &= 0x03
        entry.qos = options
        if entry.qos > 2:
            violation("malformed_requested_qos")
        at += 1
    return at


# ---------------------------------------------------------------- encoding

cdef inline uint8_t* put_fixed_header(uint8_t* at, uint8_t first, Py_ssize_t remaining) noexcept nogil:
    at[0] = first
    return put_variable(at + 1, remaining)


cdef inline uint8_t* put_bytes(uint8_t* at, Slice text) noexcept nogil:
    if text.size:
        memcpy(at, text.data, <size_t>text.size)
    return at + text.size


cdef inline Py_ssize_t remaining_length(
    uint8_t level, Py_ssize_t topic_size, Py_ssize_t properties_size, Py_ssize_t payload_size, bint has_packet_id
) noexcept nogil:
    cdef Py_ssize_t remaining = 2 + topic_size + (2 if has_packet_id else 0) + payload_size
    if level >= LEVEL_5:
        remaining += variable_size(properties_size) + properties_size
    return remaining


cdef Py_ssize_t publish_size(
    uint8_t level, Py_ssize_t topic_size, Py_ssize_t properties_size, Py_ssize_t payload_size, uint8_t qos
) noexcept nogil:
    """Return the bytes of a whole PUBLISH."""
    cdef Py_ssize_t remaining = remaining_length(level, topic_size, properties_size, payload_size, qos != 0)
    return 1 + variable_size(remaining) + remaining


cdef int append_publish(
    Buffer out, uint8_t level, uint8_t flags, Slice topic, uint16_t packet_id, Slice properties, Slice payload
) except -1:
    """Append a PUBLISH. Hot path. The caller bounds the topic (65,535 bytes) and the whole (the Remaining Length).

    `flags` are those of the fixed header. `properties` are encoded without their length; below level 5 there are none.
    """
    cdef bint has_packet_id = flags & 0x06 != 0
    cdef Py_ssize_t remaining = remaining_length(level, topic.size, properties.size, payload.size, has_packet_id)
    cdef uint8_t* at = out.reserve(FIXED_HEADER_SIZE_MAX + remaining)
    at = put_fixed_header(at, PUBLISH << 4 | flags, remaining)
    at = put_bytes(put_uint16(at, topic.size), topic)
    if has_packet_id:
        at = put_uint16(at, packet_id)
    if level >= LEVEL_5:
        at = put_bytes(put_variable(at, properties.size), properties)
    out.size = put_bytes(at, payload) - out.data
    return 0


cdef int append_ack(Buffer out, uint8_t packet_type, uint16_t packet_id) except -1:
    """Append a PUBACK, PUBREC, PUBREL or PUBCOMP of success, or an UNSUBACK below level 5. Hot path."""
    cdef uint8_t* at = out.reserve(4)
    at[0] = packet_type << 4 | (2 if packet_type == PUBREL else 0)
    at[1] = 2
    put_uint16(at + 2, packet_id)
    out.size += 4
    return 0


cdef int append_ack_with_reason(
    Buffer out, uint8_t packet_type, uint16_t packet_id, uint8_t reason_code, Slice properties
) except -1:
    """Append a PUBACK, PUBREC, PUBREL or PUBCOMP with a reason code, of MQTT 5 (3.4.2.1)."""
    cdef Py_ssize_t remaining = 3
    cdef uint8_t* at
    if properties.size:
        remaining += variable_size(properties.size) + properties.size
    at = out.reserve(FIXED_HEADER_SIZE_MAX + remaining)
    at = put_fixed_header(at, packet_type << 4 | (2 if packet_type == PUBREL else 0), remaining)
    at = put_uint16(at, packet_id)
    at[0] = reason_code
    at += 1
    if properties.size:
        at = put_bytes(put_variable(at, properties.size), properties)
    out.size = at - out.data
    return 0


cdef int append_connack(
    Buffer out, uint8_t level, bint session_present, uint8_t reason_code, Slice properties
) except -1:
    """Append a CONNACK (3.2), with properties from level 5 on."""
    cdef Py_ssize_t remaining = 2
    cdef uint8_t* at
    if level >= LEVEL_5:
        remaining += variable_size(properties.size) + properties.size
    at = put_fixed_header(out.reserve(FIXED_HEADER_SIZE_MAX + remaining), CONNACK << 4, remaining)
    at[0] = session_present
    at[1] = reason_code
    at += 2
    if level >= LEVEL_5:
        at = put_bytes(put_variable(at, properties.size), properties)
    out.size = at - out.data
    return 0


cdef int append_filter_ack(
    Buffer out, uint8_t level, uint8_t packet_type, uint16_t packet_id, const uint8_t* reason_codes, Py_ssize_t count
) except -1:
    """Append a SUBACK (3.9), or an UNSUBACK of MQTT 5 (3.11): a code for each topic filter, and no properties."""
    cdef Py_ssize_t remaining = 2 + (1 if level >= LEVEL_5 else 0) + count
    cdef uint8_t* at = out.reserve(FIXED_HEADER_SIZE_MAX + remaining)
    at = put_uint16(put_fixed_header(at, packet_type << 4, remaining), packet_id)
    if level >= LEVEL_5:
        at = put_variable(at, 0)
    memcpy(at, reason_codes, <size_t>count)
    out.size = at + count - out.data
    return 0


cdef int append_empty(Buffer out, uint8_t packet_type) except -1:
    """Append a PINGREQ, a PINGRESP or a DISCONNECT without a reason."""
    cdef uint8_t[2] packet = [packet_type << 4, 0]
    return out.append(packet, 2)


cdef int append_disconnect(Buffer out, uint8_t reason_code, Slice properties) except -1:
    """Append a DISCONNECT of MQTT 5 (3.14)."""
    cdef Py_ssize_t remaining = 1
    cdef uint8_t* at
    if properties.size:
        remaining += variable_size(properties.size) + properties.size
    at = put_fixed_header(out.reserve(FIXED_HEADER_SIZE_MAX + remaining), DISCONNECT << 4, remaining)
    at[0] = reason_code
    at += 1
    if properties.size:
        at = put_bytes(put_variable(at, properties.size), properties)
    out.size = at - out.data
    return 0
