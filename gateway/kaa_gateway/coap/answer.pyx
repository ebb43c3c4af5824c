"""CoAP responses and notifications, sans-IO: which code a status has, and how a body is cut to a block.

Source: RFC 7252 sections 5.9, 5.10 and 12.1.2; RFC 7959 section 2; RFC 8132, RFC 8516 (codes).
"""

from kaa_gateway.wire.coap cimport (
    BAD_REQUEST, BLOCK1, BLOCK2, CHANGED, CONTENT, CONTENT_FORMAT, CREATED, ECHO, ETAG, FETCH, GET,
    INTERNAL_SERVER_ERROR, MAX_AGE, OBSERVE, SIZE1, SIZE2, VALID, append_header, append_option, append_payload,
    append_uint_option, block_value,
)


cdef void start_answer(Answer* answer, uint8_t code) noexcept nogil:
    """An answer without options and body."""
    answer.code = code
    answer.body = Slice(NULL, 0)
    answer.offset = 0
    answer.szx = SZX_MAX
    answer.has_block2 = answer.has_block1 = False
    answer.content_format = answer.max_age = -1
    answer.observe = answer.size1 = -1
    answer.etag = answer.echo = Slice(NULL, 0)


cdef uint8_t code_of_status(int status, uint8_t method) noexcept nogil:
    """The response code for an extension's statusCode. What CoAP has no word for is 4.00 or 5.00. Hot path."""
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


cdef int content_format(int accept) noexcept nogil:
    """The Content-Format of a payload that the gateway does not look into: what was asked for, if it is a known one.

    Kaa's extensions speak JSON. Known are those of RFC 7252 section 12.3, and CBOR (RFC 8949).
    """
    if accept in (0, 40, 41, 42, 47, 50, 60):
        return accept
    return JSON


cdef bint is_cut(const Answer* answer) noexcept nogil:
    """Whether the body needs more than this block. Hot path."""
    return answer.offset > 0 or answer.body.size > (16 << answer.szx)


cdef int append_answer(Buffer out, Type type, uint16_t message_id, Slice token, const Answer* answer) except -1:
    """Append the message of an answer: a block of its body, and what options it has. Hot path."""
    cdef uint32_t last = 0
    cdef int64_t size = answer.body.size - answer.offset
    cdef bint more = False
    cdef bint cut = is_cut(answer)
    if size > 16 << answer.szx:
        size = 16 << answer.szx
        more = True
    append_header(out, type, answer.code, message_id, token)
    if answer.etag.data != NULL:
        append_option(out, last, ETAG, answer.etag)
        last = ETAG
    if answer.observe >= 0:
        append_uint_option(out, last, OBSERVE, <uint32_t>answer.observe)
        last = OBSERVE
    if answer.content_format >= 0:
        append_uint_option(out, last, CONTENT_FORMAT, <uint32_t>answer.content_format)
        last = CONTENT_FORMAT
    if answer.max_age >= 0:
        append_uint_option(out, last, MAX_AGE, <uint32_t>answer.max_age)
        last = MAX_AGE
    if cut or answer.has_block2:
        append_uint_option(
            out, last, BLOCK2, block_value(Block(<uint32_t>(answer.offset >> (answer.szx + 4)), more, answer.szx))
        )
        last = BLOCK2
    if answer.has_block1:
        append_uint_option(out, last, BLOCK1, block_value(answer.block1))
        last = BLOCK1
    if cut and answer.offset == 0:
        append_uint_option(out, last, SIZE2, <uint32_t>answer.body.size)
        last = SIZE2
    if answer.size1 >= 0:
        append_uint_option(out, last, SIZE1, <uint32_t>answer.size1)
        last = SIZE1
    if answer.echo.data != NULL:
        append_option(out, last, ECHO, answer.echo)
    return append_payload(out, Slice(answer.body.data + answer.offset, size))


cdef bint fit_answer(
    Buffer out, Type type, uint16_t message_id, Slice token, Answer* answer, int64_t size_max
) except -1:
    """Put the message of an answer into `out`, in at most `size_max` bytes: smaller blocks, no diagnostic payload.

    Whether that was possible. Hot path; the answer keeps the block size that was used.
    """
    while True:
        out.size = 0
        append_answer(out, type, message_id, token, answer)
        if out.size <= size_max:
            return True
        if answer.echo.data != NULL:
            answer.echo = Slice(NULL, 0)
        elif answer.code >= BAD_REQUEST and answer.body.size:
            answer.body = Slice(NULL, 0)
            answer.content_format = -1
            answer.offset = 0
        elif answer.szx > 0 and answer.body.size:
            answer.szx -= 1
        else:
            return False


def code_for(int status, int method):
    """The response code for an extension's statusCode and a method code."""
    return code_of_status(status, <uint8_t>method)
