from libc.stdint cimport int64_t, uint8_t

from kaa_gateway.http.refusals cimport Refusal
from kaa_gateway.http.target cimport RequestTarget
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.http cimport Method


cdef class RequestLimits:
    cdef Py_ssize_t body_size    # bytes
    cdef Py_ssize_t header_size  # bytes of all header fields of a request together, or of its trailers
    cdef Py_ssize_t url_length   # bytes of the request target


# What RequestParser.parse has come to.
cdef enum Progress:
    INCOMPLETE   # more bytes are needed
    HEADED       # the head is here and its body is not, and the client expects 100 Continue or `stops_at_heads` is set
    COMPLETE     # a request is here, until next_request
    REFUSED      # `refusal` says why; nothing that follows can be understood


# What the next byte belongs to.
cdef enum Phase:
    HEAD
    SIZED_BODY
    CHUNK_LINE    # the size of a chunk
    CHUNK_DATA
    CHUNK_END     # the CRLF behind a chunk
    TRAILERS


cdef class RequestParser:
    # wiring
    cdef RequestLimits limits
    cdef bytes path_prefix       # that a resource path may have, such as "/kpc"; or nothing
    cdef bint stops_at_heads     # report each head that has a body (HEADED), so that it can be refused before the body
    # state of the parser
    cdef Progress progress
    cdef Phase phase
    # Of the head, the line before a chunk, or the trailers:
    cdef Py_ssize_t scanned      # bytes that were looked at while they were incomplete
    cdef Py_ssize_t line_start
    cdef Py_ssize_t request_line_size   # 0 until it is here
    cdef Py_ssize_t body_left    # bytes of a sized body or of a chunk that are still to come
    cdef Py_ssize_t framing_size  # bytes of a chunked body that are not content
    cdef bint discarding         # the body is read and not kept
    # the request, while it is COMPLETE or HEADED
    cdef Method method
    cdef RequestTarget target
    cdef bytes authorization     # the field's value, or None
    cdef bytes origin            # the same
    cdef bint streams            # it accepts a stream of events
    cdef Slice content           # the body, borrowed from the bytes that `parse` got; NULL if it is in `body`
    cdef Buffer body
    cdef Py_ssize_t content_size  # bytes of the body so far, kept or not
    cdef bint is_http_1_0
    cdef bint keep_alive
    # header fields that matter
    cdef bytes last_authorization  # those of the requests before
    cdef bytes last_origin
    cdef bint accepts_events
    cdef bint closes             # Connection has "close",
    cdef bint persists           # or "keep-alive"
    cdef int host_count
    cdef bint host_malformed
    cdef int length_count
    cdef int64_t content_length  # bytes; -1 if absent
    cdef int coding_count
    cdef bint chunked
    cdef bint expects_continue
    cdef bint expects_unknown
    cdef readonly Refusal refusal

    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int next_request(self) except -1
    cdef bint is_at_rest(self) noexcept
    cdef int forget_client(self) except -1
    cdef int discard_body(self) except -1
    cdef int hold(self) except -1
    cdef Slice whole_body(self) noexcept
    cdef Py_ssize_t read_head(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t head_size(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Refusal read_fields(self, const uint8_t* head, Py_ssize_t size)
    cdef int take_field(self, Slice name, Slice value) except -1
    cdef Refusal check_head(self)
    cdef int end_head(self) except -1
    cdef Py_ssize_t read_sized_body(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t read_chunked_body(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t read_chunk_line(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t read_chunk_end(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t read_trailers(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t trailers_size(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef bint is_too_much_framing(self, Py_ssize_t more) noexcept
    cdef int add_content(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int refuse(self, Refusal refusal) except -1
