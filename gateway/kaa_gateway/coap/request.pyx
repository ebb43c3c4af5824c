"""What the options of a CoAP request say, and whether they may be there, sans-IO.

The segments of the URI path become the levels of the resource path: there is no percent-encoding in CoAP, and `..` is
a level like any other. Uri-Host, Uri-Port and most of Uri-Query are taken and mean nothing, as in the HTTP binding.

Source: RFC 7252 sections 5.4 and 5.10; RFC 7641, 7959, 7967 and 9175 for their options; 1/KP, resource paths.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from kaa_gateway.kp.resource_path cimport asks_no_answer, is_clean
from kaa_gateway.wire.coap cimport (
    ACCEPT, BAD_OPTION, BAD_REQUEST, BLOCK1, BLOCK2, ECHO, NO_RESPONSE, OBSERVE, PROXY_SCHEME, PROXY_URI,
    NO_OPTION, PROXYING_NOT_SUPPORTED, REQUEST_TAG, SIZE1, SIZE2, URI_HOST, URI_PATH, URI_PORT, URI_QUERY, WELL_FORMED,
    OptionReader, next_option, option_reader, read_block, read_uint, take_payload,
)

cdef enum:
    SZX_RESERVED = 7        # RFC 7959 section 2.2
    SEGMENT_SIZE_MAX = 255  # bytes
    SHORT_SEGMENT = 16      # bytes

# (code, reason code, diagnostic payload)
cdef tuple OPTION_REFUSED = (BAD_OPTION, "coap_critical_option", "Unknown or repeated critical option")
cdef tuple PROXYING_REFUSED = (PROXYING_NOT_SUPPORTED, "coap_proxying", "This is not a proxy")
cdef tuple PATH_REFUSED = (BAD_REQUEST, "coap_path", "Malformed path segment")
cdef tuple BLOCK_REFUSED = (BAD_REQUEST, "coap_block_size", "Reserved block size")
cdef tuple BY_REFUSAL = (None, OPTION_REFUSED, PROXYING_REFUSED, PATH_REFUSED, BLOCK_REFUSED)


cdef tuple refusal_of(Refusal refusal):
    return BY_REFUSAL[<int>refusal]


cdef inline Py_ssize_t size_max(uint32_t number) noexcept nogil:
    """Bytes that the value of an option known here, other than Uri-Path, may have; -1 for one that is not."""
    if number == URI_QUERY or number == URI_HOST:
        return 255
    if number == ACCEPT or number == URI_PORT:
        return 2
    if number == BLOCK1 or number == BLOCK2 or number == OBSERVE:
        return 3
    if number == SIZE1 or number == SIZE2:
        return 4
    if number == NO_RESPONSE:
        return 1
    if number == ECHO:
        return 40
    if number == REQUEST_TAG:
        return 8
    return -1


cdef inline int take_segment(Slice value, Py_ssize_t readable, Buffer path) except -1:
    """Append a segment and a slash to a path; `readable` bytes of the datagram follow the segment's start. Hot path."""
    cdef uint8_t* at = path.reserve(value.size + SHORT_SEGMENT + 1)
    if value.size <= SHORT_SEGMENT <= readable:
        memcpy(at, value.data, SHORT_SEGMENT)  # of a constant size: no call
    else:
        memcpy(at, value.data, <size_t>value.size)
    at[value.size] = c"/"
    path.size += value.size + 1
    return 0


cdef inline Py_ssize_t count_slashes(Slice text) noexcept nogil:
    """Slashes of a text, eight bytes at once: a byte that is one becomes 0, and only that has its top bit left."""
    cdef uint64_t eight, low = <uint64_t>0x7F7F7F7F7F7F7F7F
    cdef Py_ssize_t at = 0, count = 0
    while at + 8 <= text.size:
        memcpy(&eight, text.data + at, 8)
        eight = eight ^ <uint64_t>0x2F2F2F2F2F2F2F2F
        eight = ~((eight & low) + low | eight | low)
        count += (eight >> 7) * <uint64_t>0x0101010101010101 >> 56
        at += 8
    while at < text.size:
        count += text.data[at] == c"/"
        at += 1
    return count


cdef Refusal take_option(uint32_t number, uint32_t previous, Slice value, Request* request) noexcept:
    """Take what any other option says.

    An option of a wrong length, or repeated where it may not be, is treated as unknown: 4.02 if it is critical, else
    passed over (RFC 7252 sections 5.4.3 and 5.4.5).
    """
    if number == PROXY_URI or number == PROXY_SCHEME:
        return PROXYING
    if value.size > size_max(number) or (number == previous and number != URI_QUERY):
        return UNKNOWN_OPTION if number & 1 else NO_REFUSAL
    if number == URI_QUERY:
        request.unanswered = request.unanswered or asks_no_answer(value)
    elif number == ACCEPT:
        request.accept = <int>read_uint(value)
    elif number == OBSERVE:
        request.observe = <int>read_uint(value)
    elif number == NO_RESPONSE:
        request.no_response = <int>read_uint(value)
    elif number == SIZE1:
        request.size1 = <int64_t>read_uint(value)
    elif number == BLOCK1 or number == BLOCK2:
        if (value.data[value.size - 1] & 7 if value.size else 0) == SZX_RESERVED:
            return BAD_BLOCK
        if number == BLOCK1:
            request.has_block1 = True
            request.block1 = read_block(value)
        else:
            request.has_block2 = True
            request.block2 = read_block(value)
    elif number == ECHO:
        request.echo = value
    elif number == REQUEST_TAG:
        request.request_tag = value
    return NO_REFUSAL


cdef Format read_request(MessageView* view, Buffer path, Request* request) except <Format>-1:
    """Read the options of a request whose header was read, its resource path into `path`, and find its payload.

    What is malformed matters before what cannot be served, which is left in `request.refusal`. Hot path.
    """
    cdef OptionReader reader = option_reader(view)
    cdef Slice value, whole
    cdef uint32_t previous = 0
    cdef Py_ssize_t segments = 0
    cdef Format format = next_option(&reader, &value)
    request.refusal = NO_REFUSAL
    request.accept = request.observe = -1
    request.size1 = -1
    request.no_response = 0
    request.unanswered = False
    request.has_block1 = request.has_block2 = False
    request.echo = request.request_tag = Slice(NULL, 0)
    path.size = 0
    while format == WELL_FORMED:
        if request.refusal != NO_REFUSAL:
            pass
        elif reader.number == URI_PATH:
            if value.size > SEGMENT_SIZE_MAX:
                request.refusal = UNKNOWN_OPTION
            else:
                take_segment(value, reader.end - value.data, path)
                segments += 1
        else:
            request.refusal = take_option(reader.number, previous, value, request)
        previous = reader.number
        format = next_option(&reader, &value)
    if format != NO_OPTION:
        return format
    if path.size:
        path.size -= 1  # the slash behind the last segment
    whole = Slice(path.data, path.size)
    if request.refusal == NO_REFUSAL and (not is_clean(whole) or count_slashes(whole) >= max(segments, 1)):
        request.refusal = BAD_PATH
    return take_payload(&reader, view)
