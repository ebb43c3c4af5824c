"""Decode and encode the properties of MQTT 5 packets: from borrowed bytes, into a Buffer.

What a property means, and whether it may come now, is for the connection; which packet may have which, how often, and
its data type are checked here. A section of properties is written without its length, which the packet's writer adds.

Source: MQTT Version 5.0 (OASIS Standard) section 2.2.2, whose table `ALLOWED` and `TYPES` copy.
"""

from libc.string cimport memcmp, memcpy, strlen

from kaa_gateway.wire cimport mqtt_packet_types as mqtt
from kaa_gateway.wire.mqtt_fields cimport (
    check_topic_name, check_utf8, put_uint16, put_variable, take_field, take_variable, variable_size, violation,
)

cdef enum DataType:
    NONE
    BYTE
    FLAG        # a byte that is 0 or 1
    UINT16
    UINT32
    VARIABLE
    STRING
    BINARY
    STRING_PAIR

cdef enum:
    PACKET_TYPES = 16

cdef uint8_t[PROPERTY_COUNT] TYPES
cdef uint64_t[PACKET_TYPES] ALLOWED
cdef uint64_t NOT_ZERO = (
    1ULL << RECEIVE_MAXIMUM | 1ULL << MAXIMUM_PACKET_SIZE | 1ULL << SUBSCRIPTION_IDENTIFIER
)


def define(Property identifier, DataType data_type, packet_types):
    """Add a row of the table in section 2.2.2.2."""
    TYPES[<int>identifier] = <uint8_t>data_type
    for packet_type in packet_types:
        ALLOWED[<int>packet_type] |= 1ULL << <int>identifier


OF_MESSAGES = (mqtt.PUBLISH, OF_WILL)
OF_ACKS = (mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBREL, mqtt.PUBCOMP, mqtt.SUBACK, mqtt.UNSUBACK)

define(PAYLOAD_FORMAT_INDICATOR, FLAG, OF_MESSAGES)
define(MESSAGE_EXPIRY_INTERVAL, UINT32, OF_MESSAGES)
define(CONTENT_TYPE, STRING, OF_MESSAGES)
define(RESPONSE_TOPIC, STRING, OF_MESSAGES)
define(CORRELATION_DATA, BINARY, OF_MESSAGES)
define(SUBSCRIPTION_IDENTIFIER, VARIABLE, (mqtt.PUBLISH, mqtt.SUBSCRIBE))
define(SESSION_EXPIRY_INTERVAL, UINT32, (mqtt.CONNECT, mqtt.CONNACK, mqtt.DISCONNECT))
define(ASSIGNED_CLIENT_IDENTIFIER, STRING, (mqtt.CONNACK,))
define(SERVER_KEEP_ALIVE, UINT16, (mqtt.CONNACK,))
define(AUTHENTICATION_METHOD, STRING, (mqtt.CONNECT, mqtt.CONNACK, mqtt.AUTH))
define(AUTHENTICATION_DATA, BINARY, (mqtt.CONNECT, mqtt.CONNACK, mqtt.AUTH))
define(REQUEST_PROBLEM_INFORMATION, FLAG, (mqtt.CONNECT,))
define(WILL_DELAY_INTERVAL, UINT32, (OF_WILL,))
define(REQUEST_RESPONSE_INFORMATION, FLAG, (mqtt.CONNECT,))
define(RESPONSE_INFORMATION, STRING, (mqtt.CONNACK,))
define(SERVER_REFERENCE, STRING, (mqtt.CONNACK, mqtt.DISCONNECT))
define(REASON_STRING, STRING, (mqtt.CONNACK, *OF_ACKS, mqtt.DISCONNECT, mqtt.AUTH))
define(RECEIVE_MAXIMUM, UINT16, (mqtt.CONNECT, mqtt.CONNACK))
define(TOPIC_ALIAS_MAXIMUM, UINT16, (mqtt.CONNECT, mqtt.CONNACK))
define(TOPIC_ALIAS, UINT16, (mqtt.PUBLISH,))
define(MAXIMUM_QOS, FLAG, (mqtt.CONNACK,))
define(RETAIN_AVAILABLE, FLAG, (mqtt.CONNACK,))
define(USER_PROPERTY, STRING_PAIR, (
    mqtt.CONNECT, mqtt.CONNACK, *OF_MESSAGES, *OF_ACKS, mqtt.SUBSCRIBE, mqtt.UNSUBSCRIBE, mqtt.DISCONNECT, mqtt.AUTH,
))
define(MAXIMUM_PACKET_SIZE, UINT32, (mqtt.CONNECT, mqtt.CONNACK))
define(WILDCARD_SUBSCRIPTION_AVAILABLE, FLAG, (mqtt.CONNACK,))
define(SUBSCRIPTION_IDENTIFIER_AVAILABLE, FLAG, (mqtt.CONNACK,))
define(SHARED_SUBSCRIPTION_AVAILABLE, FLAG, (mqtt.CONNACK,))


# ---------------------------------------------------------------- decoding

cdef Py_ssize_t take_properties(
    const Slice* body, Py_ssize_t at, uint8_t packet_type, Properties* properties
) except -1:
    """Read the properties, with their length, at offset `at` of a body. Return the offset behind them. Hot path.

    An identifier that does not belong to the packet type is malformed (2.2.2.2); one that comes twice, but for a
    user property, or has a value that its section forbids, is a protocol error.
    """
    cdef uint32_t size = 0
    cdef Py_ssize_t i = 0
    cdef Slice section
    at = take_variable(body, at, &size)
    if body.size - at < <Py_ssize_t>size:
        violation("truncated_properties")
    section = Slice(body.data + at, size)
    properties.present = 0
    properties.user_property_count = 0
    properties.encoded = section
    while i < section.size:
        i = take_property(&section, i, packet_type, properties)
    return at + size


cdef Py_ssize_t take_property(
    const Slice* section, Py_ssize_t at, uint8_t packet_type, Properties* properties
) except -1:
    """Read the property at offset `at` of a section. Return the offset behind it. Hot path."""
    cdef uint8_t identifier = section.data[at], data_type
    cdef const uint8_t* data = section.data + at + 1
    cdef Py_ssize_t left
    cdef Slice name
    # Identifiers of more than one byte do not exist, so a byte from 0x80 on is one that does not belong here.
    if identifier >= PROPERTY_COUNT or not ALLOWED[packet_type] >> identifier & 1:
        violation("forbidden_property", f"0x{identifier:02x}")
    if properties.present >> identifier & 1 and identifier != USER_PROPERTY \
            and not (identifier == SUBSCRIPTION_IDENTIFIER and packet_type == mqtt.PUBLISH):
        violation("duplicate_property", f"0x{identifier:02x}")
    properties.present |= 1ULL << identifier
    data_type = TYPES[identifier]
    at += 1
    left = section.size - at
    if data_type == UINT16:
        if left < 2:
            violation("truncated_property")
        properties.number[identifier] = <uint32_t>data[0] << 8 | data[1]
        at += 2
    elif data_type == UINT32:
        if left < 4:
            violation("truncated_property")
        properties.number[identifier] = (
            <uint32_t>data[0] << 24 | <uint32_t>data[1] << 16 | <uint32_t>data[2] << 8 | data[3]
        )
        at += 4
    elif data_type == STRING or data_type == BINARY:
        at = take_field(section, at, &properties.text[identifier])
        if data_type == STRING:
            check_utf8(properties.text[identifier])
        if identifier == RESPONSE_TOPIC:
            check_response_topic(properties.text[identifier])
        return at
    elif data_type == STRING_PAIR:
        at = take_field(section, at, &name)
        check_utf8(name)
        at = take_field(section, at, &name)
        check_utf8(name)
        properties.user_property_count += 1
        if properties.user_property_count > USER_PROPERTIES_MAX:
            violation("too_many_user_properties")
        return at
    elif data_type == VARIABLE:
        at = take_variable(section, at, &properties.number[identifier])
    else:
        if left < 1:
            violation("truncated_property")
        properties.number[identifier] = data[0]
        at += 1
        if data[0] > 1:
            violation("property_value", f"0x{identifier:02x}")
    if properties.number[identifier] == 0 and NOT_ZERO >> identifier & 1:
        violation("property_value", f"0x{identifier:02x}")
    return at


cdef int check_response_topic(Slice topic) except -1:
    """Check a Response Topic: a topic name without wildcards (3.3.2.3.5)."""
    cdef Py_ssize_t i
    for i in range(topic.size):
        if topic.data[i] == c"+" or topic.data[i] == c"#":
            violation("wildcard_in_response_topic")
    return check_topic_name(topic)


cdef Slice user_property(const Properties* properties, const char* name) except *:
    """Return the value of the first user property of a name; its data is NULL if there is none."""
    cdef Py_ssize_t at = 0, name_size = strlen(name)
    cdef Slice found, value
    cdef Properties each
    if properties.user_property_count == 0:
        return Slice(NULL, 0)
    each.present = 0
    each.user_property_count = 0
    while at < properties.encoded.size:
        if properties.encoded.data[at] == USER_PROPERTY:
            at = take_field(&properties.encoded, at + 1, &found)
            at = take_field(&properties.encoded, at, &value)
            if found.size == name_size and memcmp(found.data, name, <size_t>name_size) == 0:
                return value
        else:
            each.present = 0
            at = take_property(&properties.encoded, at, mqtt.PUBLISH, &each)
    return Slice(NULL, 0)


# ---------------------------------------------------------------- encoding

cdef int append_byte(Buffer out, Property identifier, uint8_t value) except -1:
    """Append a property that is a byte."""
    cdef uint8_t* at = out.reserve(2)
    at[0] = <uint8_t>identifier
    at[1] = value
    out.size += 2
    return 0


cdef int append_uint16(Buffer out, Property identifier, uint32_t value) except -1:
    """Append a property that is a two-byte integer."""
    cdef uint8_t* at = out.reserve(3)
    at[0] = <uint8_t>identifier
    put_uint16(at + 1, value)
    out.size += 3
    return 0


cdef int append_uint32(Buffer out, Property identifier, uint32_t value) except -1:
    """Append a property that is a four-byte integer."""
    cdef uint8_t* at = out.reserve(5)
    at[0] = <uint8_t>identifier
    put_uint16(put_uint16(at + 1, value >> 16), value & 0xFFFF)
    out.size += 5
    return 0


cdef int append_variable(Buffer out, Property identifier, uint32_t value) except -1:
    """Append a property that is a variable byte integer."""
    cdef uint8_t* at = out.reserve(5)
    at[0] = <uint8_t>identifier
    put_variable(at + 1, value)
    out.size += 1 + variable_size(value)
    return 0


cdef int append_text(Buffer out, Property identifier, Slice value) except -1:
    """Append a property that is a string, or binary data, of at most 65,535 bytes."""
    cdef uint8_t* at = out.reserve(3 + value.size)
    at[0] = <uint8_t>identifier
    at = put_uint16(at + 1, value.size)
    if value.size:
        memcpy(at, value.data, <size_t>value.size)
    out.size += 3 + value.size
    return 0


cdef int append_user_property(Buffer out, Slice name, Slice value) except -1:
    """Append a user property."""
    cdef uint8_t* at
    append_text(out, USER_PROPERTY, name)
    at = put_uint16(out.reserve(2 + value.size), value.size)
    if value.size:
        memcpy(at, value.data, <size_t>value.size)
    out.size += 2 + value.size
    return 0
