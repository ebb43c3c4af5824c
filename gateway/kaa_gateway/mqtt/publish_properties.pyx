"""What the properties of a client's PUBLISH, or of its will, ask for, but for Topic Alias and Response Topic.

A Topic Alias is the business of topic_aliases.pyx, a Response Topic that of response_topics.pyx.

Source: MQTT Version 5.0 (OASIS Standard) section 3.3.2.3; W3C Trace Context.
"""

from libc.stdint cimport int64_t, uint8_t

from kaa_gateway.wire.mqtt_fields cimport violation
from kaa_gateway.wire.mqtt_properties cimport (
    MESSAGE_EXPIRY_INTERVAL, PAYLOAD_FORMAT_INDICATOR, SUBSCRIPTION_IDENTIFIER, USER_PROPERTY, has, user_property,
)

cdef enum:
    MILLISECONDS = 1000
    TRACEPARENT_SIZE = 55   # bytes, of W3C Trace Context version 00
    TIMEOUT_NOW = 1         # ms, of a message that expires at once


cdef int check_properties(const Properties* properties, Slice payload) except -1:
    """Check properties that a client must not send, or whose payload must fit them."""
    if has(properties, SUBSCRIPTION_IDENTIFIER):
        violation("subscription_identifier_of_client")
    if has(properties, PAYLOAD_FORMAT_INDICATOR) and properties.number[<int>PAYLOAD_FORMAT_INDICATOR]:
        try:
            payload.data[:payload.size].decode()
        except UnicodeDecodeError:
            violation("payload_format")
    return 0


cdef int apply_properties(const Properties* properties, Message* message, Counters counters) except -1:
    """Give a message its expiry and its trace, and drop other User Properties, which are counted. Hot path."""
    cdef Slice traceparent
    if has(properties, MESSAGE_EXPIRY_INTERVAL):
        message.timeout = max(
            <int64_t>properties.number[<int>MESSAGE_EXPIRY_INTERVAL] * MILLISECONDS, <int64_t>TIMEOUT_NOW
        )
    if has(properties, USER_PROPERTY):
        traceparent = user_property(properties, b"traceparent")
        if is_recorded(traceparent):
            message.traceparent = traceparent
        if properties.user_property_count > (1 if traceparent.data != NULL else 0):
            counters.count("ignored", "mqtt_user_property")
    return 0


cdef bint is_recorded(Slice traceparent) noexcept nogil:
    """Return whether this is a traceparent, of a trace that is recorded: the last digit has the flag for that."""
    cdef Py_ssize_t i
    cdef uint8_t c
    if traceparent.size != TRACEPARENT_SIZE:
        return False
    for i in range(TRACEPARENT_SIZE):
        c = traceparent.data[i]
        if i == 2 or i == 35 or i == 52:
            if c != c"-":
                return False
        elif not (c"0" <= c <= c"9" or c"a" <= c <= c"f"):
            return False
    # In ASCII, odd digits are odd, but odd are those letters that stand for even numbers.
    c = traceparent.data[TRACEPARENT_SIZE - 1]
    return (c & 1 != 0) == (c <= c"9")
