"""A load of CoAP requests over TCP, one outstanding on each connection.

It reads length and code of a message and skips the rest. Signaling messages are ignored. The requests are made in
packets.py.

Source: RFC 8323 section 3.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from kaa_bench.load.loop cimport MALFORMED_RESPONSE, NONE, UNEXPECTED_PACKET, Connection
from kaa_gateway.wire.coap_stream cimport size_of_message

cdef enum:
    SUCCESS = 2      # classes of a code
    SIGNALS = 7


cdef inline Py_ssize_t code_offset(uint8_t first) noexcept nogil:
    """Return where the code of a message is, by its first byte."""
    cdef uint8_t length = first >> 4
    return 1 if length < 13 else 2 if length == 13 else 3 if length == 14 else 5


cdef class CoapStreamLoad(StreamLoad):
    """Repeats a request on a connection when its response is complete. The window is 1."""

    def __cinit__(self, sockets, messages, int window=1):
        cdef int index
        if window != 1:
            raise ValueError("one request is outstanding on a connection: the window is 1")
        self.incoming = <Incoming*>calloc(self.count, sizeof(Incoming))
        if self.incoming == NULL:
            raise MemoryError
        for index in range(self.count):
            self.incoming[index].left = -1

    def __dealloc__(self):
        free(self.incoming)

    cdef dict refusals(self):
        errors = {
            f"code {code >> 5}.{code & 0x1F:02d}": self.refused[code] for code in range(CODES) if self.refused[code]
        }
        memset(self.refused, 0, sizeof(self.refused))
        return errors

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Find the end of each message. A response that belongs to no request is a failure. Hot path."""
        cdef Incoming* incoming = &self.incoming[connection.index]
        cdef Py_ssize_t part, total
        cdef uint8_t code
        cdef Failure failure
        while size:
            if incoming.left < 0:
                incoming.front[incoming.front_size] = data[0]
                incoming.front_size += 1
                data += 1
                size -= 1
                total = size_of_message(incoming.front, incoming.front_size)
                if total < 0:
                    return MALFORMED_RESPONSE
                if total == 0:
                    continue
                incoming.left = total - incoming.front_size
            else:
                part = min(size, <Py_ssize_t>incoming.left)
                incoming.left -= part
                data += part
                size -= part
            if incoming.left == 0:
                code = incoming.front[code_offset(incoming.front[0])]
                incoming.left = -1
                incoming.front_size = 0
                if code >> 5 == SIGNALS:
                    continue
                if connection.acknowledged >= self.written(connection):
                    return UNEXPECTED_PACKET
                failure = self.complete(code)
                if failure != NONE:
                    return failure
                self.timed(connection, connection.acknowledged)
                connection.acknowledged += 1
        return NONE

    cdef Failure complete(self, uint8_t code) noexcept nogil:
        """Count a response that is not a success. Hot path."""
        if code >> 5 < SUCCESS:
            return UNEXPECTED_PACKET
        if code >> 5 != SUCCESS:
            self.refused[code] += 1
        return NONE
