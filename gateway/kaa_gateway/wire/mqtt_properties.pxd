from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kaa_gateway.wire.buffer cimport Buffer, Slice


cdef enum Property:
    # MQTT 5 section 2.2.2.2
    PAYLOAD_FORMAT_INDICATOR = 0x01
    MESSAGE_EXPIRY_INTERVAL = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY_INTERVAL = 0x11
    ASSIGNED_CLIENT_IDENTIFIER = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY_INTERVAL = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2A


cdef enum:
    PROPERTY_COUNT = 0x2B
    OF_WILL = 0               # in place of a packet type: the properties of a will
    USER_PROPERTIES_MAX = 1000  # of one packet


cdef struct Properties:
    # The properties of a packet. Values are by identifier, and valid only where `present` has its bit.
    uint64_t present
    Slice encoded                     # all of them, without their length; borrows from the packet, like the texts
    Py_ssize_t user_property_count
    uint32_t[PROPERTY_COUNT] number
    Slice[PROPERTY_COUNT] text


cdef inline bint has(const Properties* properties, Property identifier) noexcept nogil:
    return properties.present >> <int>identifier & 1


cdef Py_ssize_t take_properties(
    const Slice* body, Py_ssize_t at, uint8_t packet_type, Properties* properties
) except -1
cdef Slice user_property(const Properties* properties, const char* name) except *

cdef int append_byte(Buffer out, Property identifier, uint8_t value) except -1
cdef int append_uint16(Buffer out, Property identifier, uint32_t value) except -1
cdef int append_uint32(Buffer out, Property identifier, uint32_t value) except -1
cdef int append_variable(Buffer out, Property identifier, uint32_t value) except -1
cdef int append_text(Buffer out, Property identifier, Slice value) except -1
cdef int append_user_property(Buffer out, Slice name, Slice value) except -1
