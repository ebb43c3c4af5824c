from libc.stdint cimport int64_t, uint8_t

from kaa_gateway.http.refusals cimport Refusal
from kaa_gateway.http.target cimport RequestTarget
from kaa_gateway.wire.buffer cimport Buffer


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
    CHUNKED_BODY


cdef enum Method:
    METHOD_POST
    METHOD_HEAD
    METHOD_OPTIONS
    METHOD_OTHER


cdef class Window:
    # state
    cdef const uint8_t* data
    cdef Py_ssize_t size


cdef class RequestParser:
    # wiring
    cdef RequestLimits limits
    cdef bytes path_prefix       # that a resource path may have, such as "/kpc"; or nothing
    cdef object native           # httptools.HttpRequestParser
    cdef Window window           # the bytes that it is shown
    cdef bint stops_at_heads     # report each head that has a body (HEADED), so that it can be refused before the body
    # state of the parser
    cdef Progress progress
    cdef Phase phase
    cdef Py_ssize_t scanned      # bytes of an incomplete head that were looked at
    cdef Py_ssize_t line_start
    cdef Py_ssize_t request_line_size   # 0 until it is here
    cdef Py_ssize_t body_left    # bytes of a sized body that are still to come
    cdef Py_ssize_t framing_size  # bytes of a chunked body that are not content
    cdef bint head_ended         # httptools has seen the end of the head,
    cdef bint message_ended      # and of the message
    cdef bint discarding         # the body is read and not kept
    cdef bint rewrites           # httptools is shown the head in another form
    # the request, while it is COMPLETE or HEADED
    cdef Method method
    cdef RequestTarget target
    cdef bytes authorization     # the field's value, or None
    cdef bytes origin            # the same
    cdef Buffer body
    cdef Py_ssize_t content_size  # bytes of the body so far, kept or not
    cdef bint is_http_1_0
    cdef bint keep_alive
    # header fields that matter
    cdef int host_count
    cdef bint host_malformed
    cdef int length_count
    cdef int64_t content_length  # bytes; -1 if absent
    cdef int transfer_encoding_count
    cdef bint chunked
    cdef bint expects_continue
    cdef bint expects_unknown
    cdef readonly Refusal refusal

    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int next_request(self) except -1
    cdef int discard_body(self) except -1
    cdef int release(self) except -1
    cdef Py_ssize_t read_head(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t head_size(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int feed_rewritten(self, const uint8_t* head, Py_ssize_t size) except -1
    cdef int end_head(self, const uint8_t* head) except -1
    cdef Refusal check_head(self, const uint8_t* head)
    cdef Refusal read_request_line(self, const uint8_t* line)
    cdef Py_ssize_t read_sized_body(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t read_chunked_body(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int add_content(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int feed(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int refuse(self, Refusal refusal) except -1
