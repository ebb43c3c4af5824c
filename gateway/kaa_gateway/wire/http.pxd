from libc.stdint cimport int64_t, uint8_t

from kaa_gateway.wire.buffer cimport Slice


cdef enum Method:
    METHOD_POST
    METHOD_GET
    METHOD_HEAD
    METHOD_OPTIONS
    METHOD_CONNECT
    METHOD_OTHER      # another that RFC 9110 or RFC 5789 names
    METHOD_UNKNOWN


cdef struct RequestLine:
    Py_ssize_t size   # bytes of the line, with CRLF
    Method method
    # Borrowed from the head.
    Slice method_name
    Slice target
    # HTTP/<major>.<minor>
    int major
    int minor


# The result of read_request_line.
cdef enum LineFormat:
    LINE_WELL_FORMED
    LINE_MALFORMED


# The result of next_field.
cdef enum FieldFormat:
    FIELD_WELL_FORMED
    FIELDS_ENDED        # the empty line was read
    FIELD_MALFORMED


cdef LineFormat read_request_line(const uint8_t* data, Py_ssize_t size, RequestLine* line) noexcept nogil
cdef FieldFormat next_field(
    const uint8_t* data, Py_ssize_t size, Py_ssize_t* at, Slice* name, Slice* value
) noexcept nogil
cdef int64_t read_content_length(Slice value) noexcept nogil
cdef int64_t read_chunk_size(const uint8_t* line, Py_ssize_t size) noexcept nogil
cdef bint has_option(Slice value, const char* option, Py_ssize_t size) noexcept nogil


cdef inline bint is_text(Slice text, const char* lower, Py_ssize_t size) noexcept nogil:
    # Whether a token is the other, which is in lower case, in whatever case. The token has no control characters.
    cdef Py_ssize_t i
    if text.size != size:
        return False
    for i in range(size):
        if (text.data[i] | 0x20) != <uint8_t>lower[i]:
            return False
    return True
