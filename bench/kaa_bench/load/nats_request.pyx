"""A load of bare NATS requests: what the gateway's way to the extension and back is measured beside.

A message is a PUB with a reply subject that its connection subscribes to. Replies come in the order of the requests,
since one service answers all of them. PING is answered with PONG. The messages are made in packets.py.

Source: the NATS client protocol.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy

from kaa_bench.load.loop cimport MALFORMED_RESPONSE, MSG_DONTWAIT, MSG_NOSIGNAL, NONE, UNEXPECTED_PACKET, send

cdef enum:
    BREAK_SIZE = 2             # "\r\n"
    PAYLOAD_DIGITS_MAX = 8


cdef class NatsRequestLoad(StreamLoad):
    """Requests on sockets that are past CONNECT and have subscribed to their reply subject."""

    def __cinit__(self, sockets, messages, int window):
        self.replies = <Reply*>calloc(self.count, sizeof(Reply))
        if self.replies == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.replies)

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Collect lines, skip payloads. Hot path."""
        cdef Reply* reply = &self.replies[connection.index]
        cdef const uint8_t* end
        cdef Py_ssize_t part
        cdef Failure failure
        while size:
            if reply.payload_left:
                part = min(size, reply.payload_left)
                reply.payload_left -= part
                if reply.payload_left == 0:
                    if connection.acknowledged >= self.written(connection):
                        return UNEXPECTED_PACKET
                    self.timed(connection, connection.acknowledged)
                    connection.acknowledged += 1
            else:
                end = <const uint8_t*>memchr(data, c"\n", <size_t>size)
                part = size if end == NULL else end + 1 - data
                if reply.line_size + part > LINE_SIZE_MAX:
                    return MALFORMED_RESPONSE
                memcpy(reply.line + reply.line_size, data, <size_t>part)
                reply.line_size += part
                if end != NULL:
                    failure = self.line_complete(connection, reply)
                    if failure != NONE:
                        return failure
                    reply.line_size = 0
            data += part
            size -= part
        return NONE

    cdef Failure line_complete(self, Connection* connection, Reply* reply) noexcept nogil:
        """A whole line: of MSG the last field is the size of the payload. Hot path."""
        cdef Py_ssize_t at = reply.line_size - BREAK_SIZE, first, index, length = 0
        if reply.line_size >= 4 and memcmp(reply.line, b"MSG ", 4) == 0:
            first = at
            while first > 0 and c"0" <= reply.line[first - 1] <= c"9":
                first -= 1
            if first == at or at - first > PAYLOAD_DIGITS_MAX:
                return MALFORMED_RESPONSE
            for index in range(first, at):
                length = length * 10 + reply.line[index] - c"0"
            reply.payload_left = length + BREAK_SIZE
            return NONE
        if reply.line_size >= 4 and memcmp(reply.line, b"PING", 4) == 0:
            # Nothing is in the middle of being written only if the socket has taken all.
            if self.streams[connection.index].unsent == 0:
                send(connection.fd, <const char*>b"PONG\r\n", 6, MSG_DONTWAIT | MSG_NOSIGNAL)
            return NONE
        if reply.line_size >= 4 and memcmp(reply.line, b"INFO", 4) == 0:
            return NONE
        return UNEXPECTED_PACKET
