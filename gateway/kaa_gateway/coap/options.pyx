"""The options of CoAP requests and responses, sans-IO: what a request asks for, and how a response is encoded.

The segments of Uri-Path become the levels of the resource path. CoAP has no percent-encoding, and `..` is a level like
any other. Uri-Host, Uri-Port and most of Uri-Query are accepted and have no meaning, as in the HTTP binding.

Source: RFC 7252 sections 5.4, 5.9, 5.10 and 12.1.2; RFC 7641, 7959, 7967, 8132, 8516 and 9175 for their options and
codes; 1/KP, resource paths.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memchr, memcpy

from kaa_gateway.kp.resource_path cimport is_clean
from kaa_gateway.wire.coap cimport (
    ACCEPT, BAD_OPTION, BAD_REQUEST, BERT, BLOCK1, BLOCK2, CHANGED, CONTENT, CONTENT_FORMAT, CREATED, ECHO, ETAG, FETCH,
    GET, INTERNAL_SERVER_ERROR, LOCATION_PATH, MAX_AGE, NO_OPTION, NO_RESPONSE, OBSERVE, PROXY_SCHEME, PROXY_URI,
    PROXYING_NOT_SUPPORTED, REQUEST_TAG, SIZE1, SIZE2, STREAM, URI_HOST, URI_PATH, URI_PORT, URI_QUERY, VALID,
    WELL_FORMED, OptionReader, append_header, append_option, append_payload, append_uint_option, block_value,
    next_option, option_reader, read_block, read_uint, take_payload,
)
from kaa_gateway.wire.query cimport clear_query, read_parameter

cdef enum:
    SEGMENT_SIZE_MAX = 255  # bytes
    LOCATION_SIZE_MAX = 512  # bytes of a resource path that Location-Path shows
    SHORT_SEGMENT = 16      # bytes


cdef class Refusal:
    """An error that the gateway itself answers a request with."""

    def __init__(self, uint8_t code, str reason not None, str diagnostic not None):
        self.code = code
        self.reason = reason
        self.diagnostic = diagnostic.encode()


cdef Refusal OPTION_REFUSED = Refusal(BAD_OPTION, "coap_critical_option", "Unknown or repeated critical option")
cdef Refusal PROXYING_REFUSED = Refusal(PROXYING_NOT_SUPPORTED, "coap_proxying", "This is not a proxy")
cdef Refusal PATH_REFUSED = Refusal(BAD_REQUEST, "coap_path", "Malformed path segment")
cdef Refusal BLOCK_REFUSED = Refusal(BAD_REQUEST, "coap_block_size", "Reserved block size")
cdef tuple REFUSAL_BY_FAULT = (None, OPTION_REFUSED, PROXYING_REFUSED, PATH_REFUSED, BLOCK_REFUSED)


cdef Refusal refusal_for(OptionFault fault):
    """Return the error response to a request with this fault."""
    return REFUSAL_BY_FAULT[<int>fault]


# ---------------------------------------------------------------- requests

cdef inline Py_ssize_t size_max(uint32_t number) noexcept nogil:
    """Return the largest size of a known option's value, other than Uri-Path; -1 for an unknown option."""
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
    if number == REQUEST_TAG or number == ETAG:
        return 8
    return -1


cdef inline int take_segment(Slice value, Py_ssize_t readable, Buffer path) except -1:
    """Append a segment and a slash to a path. Hot path.

    `readable` bytes of the datagram follow the start of the segment.
    """
    cdef uint8_t* at = path.reserve(value.size + SHORT_SEGMENT + 1)
    if value.size <= SHORT_SEGMENT <= readable:
        memcpy(at, value.data, SHORT_SEGMENT)  # of a constant size: no call
    else:
        memcpy(at, value.data, <size_t>value.size)
    at[value.size] = c"/"
    path.size += value.size + 1
    return 0


cdef inline Py_ssize_t count_slashes(Slice text) noexcept nogil:
    """Count the slashes of a text, eight bytes at once.

    A byte that is a slash becomes 0, and only such a byte keeps its top bit.
    """
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


cdef OptionFault take_option(uint32_t number, uint32_t previous, Slice value, Request* request) noexcept:
    """Read an option other than Uri-Path into `request`.

    An option of a wrong length, or one repeated against the rules, counts as unknown: it is a fault if it is critical
    and is ignored if it is elective (RFC 7252 sections 5.4.3 and 5.4.5).
    """
    if number == PROXY_URI or number == PROXY_SCHEME:
        return PROXYING
    if value.size > size_max(number) or (number == previous and number != URI_QUERY and number != ETAG):
        return CRITICAL_OPTION if number & 1 else NO_FAULT
    if number == URI_QUERY:
        read_parameter(value, &request.query)
    elif number == ACCEPT:
        request.accept = <int>read_uint(value)
    elif number == OBSERVE:
        request.observe = <int>read_uint(value)
    elif number == NO_RESPONSE:
        request.no_response = <int>read_uint(value)
    elif number == SIZE1:
        request.size1 = <int64_t>read_uint(value)
    elif number == BLOCK1 or number == BLOCK2:
        if (value.data[value.size - 1] & 7 if value.size else 0) == BERT and not request.over_stream:
            return RESERVED_BLOCK_SIZE
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
    elif number == ETAG and value.size == ETAG_SIZE and request.etag_count < ETAGS_MAX:
        request.etags[request.etag_count] = read_uint(value)
        request.etag_count += 1
    return NO_FAULT


cdef Format read_request(MessageView* view, Buffer path, Request* request) except <Format>-1:
    """Read the options and find the payload of a request whose header has been read. Hot path.

    The resource path is written to `path`. A malformed message is reported by the return value, a well-formed one that
    cannot be served by `request.fault`. Slices of `request` borrow from the datagram.
    """
    cdef OptionReader reader = option_reader(view)
    cdef Slice value, whole
    cdef uint32_t previous = 0
    cdef Py_ssize_t segments = 0
    cdef Format format = next_option(&reader, &value)
    request.fault = NO_FAULT
    request.over_stream = view.type == STREAM
    request.accept = request.observe = -1
    request.size1 = -1
    request.no_response = request.etag_count = 0
    clear_query(&request.query)
    request.has_block1 = request.has_block2 = False
    request.echo = request.request_tag = Slice(NULL, 0)
    path.size = 0
    while format == WELL_FORMED:
        if request.fault != NO_FAULT:
            pass
        elif reader.number == URI_PATH:
            if value.size > SEGMENT_SIZE_MAX:
                request.fault = CRITICAL_OPTION
            else:
                take_segment(value, reader.end - value.data, path)
                segments += 1
        else:
            request.fault = take_option(reader.number, previous, value, request)
        previous = reader.number
        format = next_option(&reader, &value)
    if format != NO_OPTION:
        return format
    if path.size:
        path.size -= 1  # the slash behind the last segment
    whole = Slice(path.data, path.size)
    if request.fault == NO_FAULT and (not is_clean(whole) or count_slashes(whole) >= max(segments, 1)):
        request.fault = MALFORMED_PATH
    return take_payload(&reader, view)


cdef tuple queries_of(const MessageView* view):
    """Return the values of Uri-Query of a request that has been read."""
    cdef OptionReader reader = option_reader(view)
    cdef Slice value
    cdef list found = []
    while next_option(&reader, &value) == WELL_FORMED:
        if reader.number == URI_QUERY:
            found.append(value.data[:value.size])
    return tuple(found)


# ---------------------------------------------------------------- responses

cdef void start_response(Response* response, uint8_t code) noexcept nogil:
    """Begin a response without options and body."""
    response.code = code
    response.body = Slice(NULL, 0)
    response.offset = 0
    response.szx = SZX_MAX
    response.has_block2 = response.has_block1 = response.kept = False
    response.content_format = response.max_age = -1
    response.observe = response.size1 = -1
    response.etag = response.location = response.echo = Slice(NULL, 0)


cdef Slice location_of(Slice path) noexcept:
    """Return the part of a resource path that Location-Path shows: its levels, or nothing if an option cannot hold it.

    Location-Path (RFC 7252 section 5.10.7) is elective, and each client library shows it.
    """
    cdef const uint8_t* slash
    cdef Py_ssize_t at = 0, end
    if path.size and path.data[0] == c"/":
        path.data += 1
        path.size -= 1
    if path.size == 0 or path.size > LOCATION_SIZE_MAX or not is_clean(path):
        return Slice(NULL, 0)
    while at <= path.size:
        slash = <const uint8_t*>memchr(path.data + at, c"/", <size_t>(path.size - at))
        end = path.size if slash == NULL else slash - path.data
        if end - at > SEGMENT_SIZE_MAX:
            return Slice(NULL, 0)
        at = end + 1
    return path


cdef int append_location(Buffer out, uint32_t last, Slice path) except -1:
    """Append the levels of a path as Location-Path; `last` is the number of the option before them."""
    cdef const uint8_t* slash
    cdef Py_ssize_t size
    while True:
        slash = <const uint8_t*>memchr(path.data, c"/", <size_t>path.size)
        size = path.size if slash == NULL else slash - path.data
        append_option(out, last, LOCATION_PATH, Slice(path.data, size))
        if slash == NULL:
            return 0
        last = LOCATION_PATH
        path.data += size + 1
        path.size -= size + 1


cdef uint8_t code_of_status(int status, uint8_t method) noexcept nogil:
    """Return the response code for an extension's statusCode: 4.00 or 5.00 if CoAP has no code for it. Hot path."""
    cdef int detail
    if 200 <= status < 300:
        if status == 201:
            return CREATED
        if (method == GET or method == FETCH) and status != 202 and status != 204:
            return CONTENT
        return CHANGED
    if status == 304:
        return VALID
    if 400 <= status < 500:
        detail = status - 400
        if detail in (0, 1, 3, 4, 5, 6, 8, 9, 12, 13, 15, 22, 29):
            return <uint8_t>(BAD_REQUEST + detail)
        return BAD_REQUEST
    if 500 <= status <= 504:
        return <uint8_t>(INTERNAL_SERVER_ERROR + status - 500)
    return INTERNAL_SERVER_ERROR


cdef int format_of_payload(int accept) noexcept nogil:
    """Return the Content-Format of a payload: the one that Accept names, or JSON.

    The gateway does not look into payloads, and Kaa's extensions speak JSON. Known are the formats of RFC 7252 section
    12.3 and CBOR (RFC 8949).
    """
    return accept if accept >= 0 else JSON


cdef bint is_known_format(int accept) noexcept nogil:
    """Return whether a response can have the Content-Format that Accept names; a negative one accepts any. Hot path."""
    return accept < 0 or accept in (0, 40, 41, 42, 47, 50, 60)


cdef int append_response(Buffer out, Type type, uint16_t message_id, Slice token, const Response* response) except -1:
    """Append the message of a response: its options and a block of its body. Hot path."""
    cdef uint32_t last = 0
    cdef int64_t size = response.body.size - response.offset
    cdef bint more = False
    cdef bint cut = is_cut(response)
    if size > 16 << response.szx:
        size = 16 << response.szx
        more = True
    append_header(out, type, response.code, message_id, token)
    if response.etag.data != NULL:
        append_option(out, last, ETAG, response.etag)
        last = ETAG
    if response.observe >= 0:
        append_uint_option(out, last, OBSERVE, <uint32_t>response.observe)
        last = OBSERVE
    if response.location.data != NULL:
        append_location(out, last, response.location)
        last = LOCATION_PATH
    if response.content_format >= 0:
        append_uint_option(out, last, CONTENT_FORMAT, <uint32_t>response.content_format)
        last = CONTENT_FORMAT
    if response.max_age >= 0:
        append_uint_option(out, last, MAX_AGE, <uint32_t>response.max_age)
        last = MAX_AGE
    if cut or response.has_block2:
        append_uint_option(
            out, last, BLOCK2, block_value(Block(<uint32_t>(response.offset >> (response.szx + 4)), more, response.szx))
        )
        last = BLOCK2
    if response.has_block1:
        append_uint_option(out, last, BLOCK1, block_value(response.block1))
        last = BLOCK1
    if cut and response.offset == 0:
        append_uint_option(out, last, SIZE2, <uint32_t>response.body.size)
        last = SIZE2
    if response.size1 >= 0:
        append_uint_option(out, last, SIZE1, <uint32_t>response.size1)
        last = SIZE1
    if response.echo.data != NULL:
        append_option(out, last, ECHO, response.echo)
    return append_payload(out, Slice(response.body.data + response.offset, size))


cdef bint encode_response(
    Buffer out, Type type, uint16_t message_id, Slice token, Response* response, int64_t size_max
) except -1:
    """Write the message of a response into `out`, in at most `size_max` bytes. Return False if that is impossible.

    To save bytes, Echo and the diagnostic payload are left out and blocks become smaller; `response` is changed to what
    was written. Hot path.
    """
    while True:
        out.size = 0
        append_response(out, type, message_id, token, response)
        if out.size <= size_max:
            return True
        if response.echo.data != NULL:
            response.echo = Slice(NULL, 0)
        elif response.code >= BAD_REQUEST and response.body.size:
            response.body = Slice(NULL, 0)
            response.content_format = -1
            response.offset = 0
        elif response.szx > 0 and response.body.size:
            response.szx = min(response.szx - 1, <int>SZX_MAX)
        else:
            return False


def code_for(int status, int method):
    """Return the response code for an extension's statusCode and a method code."""
    return code_of_status(status, <uint8_t>method)
