from libc.stdint cimport uint8_t, uint32_t

from kaa_gateway.wire.buffer cimport Slice


cdef enum:
    VARIABLE_MAX = 268435455  # of a variable byte integer, MQTT 5 section 1.5.5


cdef int violation(str reason, str detail=*) except -1
cdef Py_ssize_t take_field(const Slice* body, Py_ssize_t at, Slice* field) except -1
cdef Py_ssize_t take_variable(const Slice* body, Py_ssize_t at, uint32_t* value) except -1
cdef int check_utf8(Slice field) except -1
cdef int check_topic_name(Slice topic) except -1
cdef int check_topic_filter(Slice topic_filter) except -1
cdef int check_control_characters(Slice field) except -1


cdef inline int variable_size(Py_ssize_t value) noexcept nogil:
    return 1 if value < 128 else 2 if value < 16384 else 3 if value < 2097152 else 4


cdef inline uint8_t* put_variable(uint8_t* at, Py_ssize_t value) noexcept nogil:
    while value > 127:
        at[0] = <uint8_t>(value & 0x7F) | 0x80
        at += 1
        value >>= 7
    at[0] = <uint8_t>value
    return at + 1


cdef inline uint8_t* put_uint16(uint8_t* at, Py_ssize_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 8)
    at[1] = <uint8_t>value
    return at + 2
