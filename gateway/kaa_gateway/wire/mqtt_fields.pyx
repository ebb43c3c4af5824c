"""Decode and check the fields of MQTT packets: strings, binary data, variable byte integers, topics.

A violation raises ProtocolError with the reason that the metrics count.

Source: MQTT Version 5.0 (OASIS Standard) section 1.5, whose strings and topics are those of MQTT 3.1.1.
"""

from libc.string cimport memchr

from kaa_gateway.errors import ProtocolError


cdef int violation(str reason, str detail="") except -1:
    """Raise ProtocolError."""
    raise ProtocolError("mqtt_" + reason, detail)


cdef Py_ssize_t take_field(const Slice* body, Py_ssize_t at, Slice* field) except -1:
    """Read a field with a two-byte length (1.5.4, 1.5.6) at offset `at` of a body. Return the offset behind it."""
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


cdef Py_ssize_t take_variable(const Slice* body, Py_ssize_t at, uint32_t* value) except -1:
    """Read a variable byte integer (1.5.5) at offset `at` of a body. Return the offset behind it. Hot path.

    An encoding that is longer than necessary is a violation.
    """
    cdef int shift = 0
    cdef uint8_t byte
    value[0] = 0
    while True:
        if at >= body.size:
            violation("truncated_field")
        byte = body.data[at]
        at += 1
        value[0] |= <uint32_t>(byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 21:
            violation("malformed_variable_integer")
    if byte == 0 and shift:
        violation("malformed_variable_integer")
    return at


cdef int check_utf8(Slice field) except -1:
    """Check that a field is well-formed UTF-8 without NUL and surrogates (1.5.4)."""
    cdef Py_ssize_t i
    cdef uint8_t seen = 0, nul = 0
    for i in range(field.size):
        seen |= field.data[i]
        nul |= field.data[i] == 0
    if nul:
        violation("nul_in_string")
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


cdef int check_control_characters(Slice field) except -1:
    """Check that a field of good UTF-8 has no control characters, U+0001 to U+001F and U+007F to U+009F (1.5.4)."""
    cdef Py_ssize_t i
    cdef const uint8_t* data = field.data
    for i in range(field.size):
        if data[i] < 0x20 or data[i] == 0x7F \
                or (data[i] == 0xC2 and i + 1 < field.size and data[i + 1] < 0xA0):
            violation("control_character")
    return 0
