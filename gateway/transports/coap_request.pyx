"""What the options of a CoAP request say, and whether they may be there, sans-IO.

The segments of the URI path become the levels of the resource path: there is no percent-encoding in CoAP, and `..` is
a level like any other. Uri-Host, Uri-Port and most of Uri-Query are taken and mean nothing, as in the HTTP binding.

Source: RFC 7252 sections 5.4 and 5.10; RFC 7641, 7959, 7967 and 9175 for their options; 1/KP, resource paths.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memchr, memcpy

from gateway.kp.resource_path cimport asks_no_answer, is_clean
from gateway.wire.coap cimport (
    ACCEPT, BAD_OPTION, BAD_REQUEST, BLOCK1, BLOCK2, ECHO, NO_RESPONSE, OBSERVE, PROXY_SCHEME, PROXY_URI,
    PROXYING_NOT_SUPPORTED, REQUEST_TAG, SIZE1, SIZE2, URI_HOST, URI_PATH, URI_PORT, URI_QUERY, OptionReader,
    next_option, read_block, read_uint,
)

cdef enum:
    SZX_RESERVED = 7  # RFC 7959 section 2.2

# (code, reason code, diagnostic payload)
cdef tuple UNKNOWN_OPTION = (BAD_OPTION, "coap_critical_option", "Unknown or repeated critical option")
cdef tuple PROXYING = (PROXYING_NOT_SUPPORTED, "coap_proxying", "This is not a proxy")
cdef tuple BAD_PATH = (BAD_REQUEST, "coap_path", "Malformed path segment")
cdef tuple BAD_BLOCK = (BAD_REQUEST, "coap_block_size", "Reserved block size")


cdef inline Py_ssize_t size_max(uint32_t number) noexcept nogil:
    """Bytes that the value of an option known here may have; -1 for one that is not."""
    if number == URI_PATH or number == URI_QUERY or number == URI_HOST:
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


cdef tuple read_request(const MessageView* view, Buffer path, Request* request):
    """Read the options of a well-formed request, and its resource path into `path`: None, or its refusal. Hot path.

    An option of a wrong length, or repeated where it may not be, is treated as unknown: 4.02 if it is critical, else
    passed over (RFC 7252 sections 5.4.3 and 5.4.5).
    """
    cdef OptionReader reader = OptionReader(view.options.data, view.options.data + view.options.size, 0)
    cdef Slice value
    cdef uint32_t number, previous
    cdef Py_ssize_t limit
    cdef uint8_t* at
    request.accept = request.observe = -1
    request.size1 = -1
    request.no_response = 0
    request.unanswered = False
    request.has_block1 = request.has_block2 = False
    request.echo = request.request_tag = Slice(NULL, 0)
    path.size = 0
    while reader.at < reader.end:
        previous = reader.number
        next_option(&reader, &value)
        number = reader.number
        if number == PROXY_URI or number == PROXY_SCHEME:
            return PROXYING
        limit = size_max(number)
        if value.size > limit or (number == previous and number != URI_PATH and number != URI_QUERY):
            if number & 1:
                return UNKNOWN_OPTION
            continue
        if number == URI_PATH:
            if value.size and memchr(value.data, c"/", <size_t>value.size) != NULL:
                return BAD_PATH
            at = path.reserve(value.size + 1)
            if previous == URI_PATH:
                at[0] = c"/"
                at += 1
                path.size += 1
            memcpy(at, value.data, <size_t>value.size)
            path.size += value.size
        elif number == URI_QUERY:
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
    if not is_clean(Slice(path.data, path.size)):
        return BAD_PATH
    return None
