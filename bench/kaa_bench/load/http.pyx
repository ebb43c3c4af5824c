"""A load of HTTP/1.1 requests on keep-alive connections, one outstanding on each.

It reads the status line and Content-Length of a response, and skips the body. A response without a length, such as a
chunked one, is a failure: the servers under test give a length. A status other than 2xx is counted as an error by its
code; the connection continues. The requests are made in packets.py.

Source: RFC 9112, sections 4, 5, 6.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset
from posix.strings cimport strncasecmp

from kaa_bench.load.loop cimport MALFORMED_RESPONSE, NONE, UNEXPECTED_PACKET
from kaa_gateway.wire.text cimport memmem

cdef enum:
    STATUS_MIN = 100
    STATUS_OFFSET = 9          # "HTTP/1.1 200"
    STATUS_END = 12
    CONTENT_LENGTH_SIZE = 17   # of the field name with the line break before it and the colon
    BODY_DIGITS_MAX = 9        # digits of a Content-Length


cdef inline int digit(char character) noexcept nogil:
    """Return the digit's value, or -1."""
    return character - c"0" if c"0" <= character <= c"9" else -1


cdef class HttpLoad(StreamLoad):
    """Repeats a request on a connection when the response is complete. The window is 1."""

    def __cinit__(self, sockets, messages, int window=1):
        cdef int index
        if window != 1:
            raise ValueError("one request is outstanding on a connection: the window is 1")
        self.responses = <Response*>calloc(self.count, sizeof(Response))
        if self.responses == NULL:
            raise MemoryError
        for index in range(self.count):
            self.responses[index].body_left = -1

    def __dealloc__(self):
        free(self.responses)

    cdef dict refusals(self):
        errors = {
            f"status {status}": self.statuses[status]
            for status in range(STATUS_MAX + 1)
            if self.statuses[status] and status // 100 != 2
        }
        memset(self.statuses, 0, sizeof(self.statuses))
        return errors

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Collect the head and skip the body. Bytes that belong to no request are a failure. Hot path."""
        cdef Response* response = &self.responses[connection.index]
        cdef Py_ssize_t part, body_start
        cdef Failure failure
        cdef const char* end
        while size:
            if connection.acknowledged >= self.written(connection):
                return UNEXPECTED_PACKET
            if response.body_left < 0:
                part = min(size, HEAD_SIZE_MAX - response.head_size)
                memcpy(response.head + response.head_size, data, <size_t>part)
                end = <const char*>memmem(response.head, <size_t>(response.head_size + part), b"\r\n\r\n", 4)
                if end == NULL:
                    response.head_size += part
                    if response.head_size == HEAD_SIZE_MAX:
                        return MALFORMED_RESPONSE
                    return NONE
                body_start = end + 4 - response.head
                failure = self.head_complete(response, body_start)
                if failure != NONE:
                    return failure
                part = body_start - response.head_size
                response.head_size = 0
            else:
                part = min(size, <Py_ssize_t>response.body_left)
                response.body_left -= part
            data += part
            size -= part
            if response.body_left == 0:
                response.body_left = -1
                self.timed(connection, connection.acknowledged)
                connection.acknowledged += 1
        return NONE

    cdef Failure head_complete(self, Response* response, Py_ssize_t size) noexcept nogil:
        """Count the status in a head of `size` bytes, and set `body_left`. Hot path."""
        cdef const char* head = response.head
        cdef const char* field
        cdef const char* end = head + size - 2  # the empty line: every field line ends at or before it
        cdef int status = 0, value, digits = 0
        cdef Py_ssize_t at
        cdef int64_t length = 0
        if size < STATUS_END + 4 or memcmp(head, <const char*>b"HTTP/1.", 7) != 0:
            return MALFORMED_RESPONSE
        for at in range(STATUS_OFFSET, STATUS_END):
            value = digit(head[at])
            if value < 0:
                return MALFORMED_RESPONSE
            status = status * 10 + value
        if not STATUS_MIN <= status <= STATUS_MAX:
            return MALFORMED_RESPONSE
        self.statuses[status] += 1
        response.body_left = 0
        if status == 204:
            return NONE
        field = head
        while True:
            field = <const char*>memmem(field, <size_t>(end - field), b"\r\n", 2)
            if field == NULL or end - field < CONTENT_LENGTH_SIZE:
                return MALFORMED_RESPONSE
            if strncasecmp(field, b"\r\ncontent-length:", CONTENT_LENGTH_SIZE) == 0:
                break
            field += 2
        field += CONTENT_LENGTH_SIZE
        while field < end and field[0] == c" ":
            field += 1
        while field < end and digit(field[0]) >= 0:
            length = length * 10 + digit(field[0])
            field += 1
            digits += 1
            if digits > BODY_DIGITS_MAX:
                return MALFORMED_RESPONSE
        if digits == 0:
            return MALFORMED_RESPONSE
        response.body_left = length
        return NONE
