from libc.stdint cimport int64_t, uint8_t

from kaa_gateway.wire.buffer cimport Buffer


cdef class RequestLimits:
    cdef Py_ssize_t body_size    # bytes
    cdef Py_ssize_t header_size  # bytes of all header fields of a request together, or of its trailers
    cdef Py_ssize_t url_length   # bytes of the request target


# What RequestParser.parse has come to.
cdef enum Progress:
    INCOMPLETE   # more bytes are needed
    HEADED       # the head is here and its body is not, and the client waits for 100 Continue, or `shows_heads`
    COMPLETE     # a request is here, until next_request
    REFUSED      # `refusal` says why; nothing that follows can be understood


cdef enum Phase:
    HEAD
    SIZED_BODY
    CHUNKED_BODY


cdef class Window:
    # state
    cdef const uint8_t* data
    cdef Py_ssize_t size


cdef class RequestParser:
    # wiring
    cdef RequestLimits limits
    cdef object native           # httptools.HttpRequestParser
    cdef bint shows_heads        # to whoever may not want the body
    cdef Window window           # what it is shown
    # state of the parser
    cdef Progress progress
    cdef Phase phase
    cdef Py_ssize_t scanned      # bytes of an incomplete head that were looked at
    cdef Py_ssize_t line_start
    cdef Py_ssize_t request_line_size   # 0 until it is here
    cdef Py_ssize_t body_left    # bytes of a sized body that are still to come
    cdef Py_ssize_t framing_size  # bytes of a chunked body that are not content
    cdef bint head_ended
    cdef bint message_ended
    cdef bint discarding         # nobody wants this body: it is read, and not kept
    cdef bint upgrade_ignored    # httptools takes the body for another protocol's bytes, so it is not shown it
    # the request, while it is COMPLETE or HEADED
    cdef bytes target
    cdef bytes authorization     # the field's value, or None
    cdef Buffer body
    cdef Py_ssize_t content_size  # bytes of the body so far, kept or not
    cdef bint is_post
    cdef bint is_head
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
    cdef readonly tuple refusal  # (status, reason code, reason phrase)

    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int next_request(self) except -1
    cdef int discard(self) except -1
    cdef int release(self) except -1
    cdef Py_ssize_t read_head(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t head_size(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int end_head(self, const uint8_t* head) except -1
    cdef tuple judge_head(self, const uint8_t* head)
    cdef tuple judge_request_line(self, const uint8_t* line)
    cdef Py_ssize_t read_sized_body(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t read_chunked_body(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int keep(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int feed(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int refuse(self, tuple refusal) except -1
