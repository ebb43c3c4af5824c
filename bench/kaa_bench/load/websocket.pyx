"""A load of MQTT over WebSocket: MqttLoad, with its packets in binary messages.

The messages of the load are whole frames, made by kaa_bench.websocket. What comes is unwrapped here; anything other
than data is a failure.

Source: RFC 6455, section 5.2.
"""

from libc.stdlib cimport calloc, free

from kaa_bench.load.loop cimport MALFORMED_RESPONSE, NONE, UNEXPECTED_PACKET

cdef enum:
    OPCODE = 0x0F
    CONTINUATION = 0
    BINARY = 2
    MASKED = 0x80
    TWO_BYTES = 126         # the length follows in two bytes
    EIGHT_BYTES = 127       # the length follows in eight bytes


cdef class WebSocketLoad(MqttLoad):
    """Publishes on sockets past CONNACK. See MqttLoad."""

    def __cinit__(self, sockets, messages, int window, **_):
        self.frames = <Frame*>calloc(self.count, sizeof(Frame))
        if self.frames == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.frames)

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Give MqttLoad the contents of frames; the beginning of an incomplete header is kept in `frames`. Hot path."""
        cdef Frame* frame = &self.frames[connection.index]
        cdef Failure failure
        cdef Py_ssize_t part
        while size:
            if frame.left:
                part = min(frame.left, size)
                failure = MqttLoad.take(self, connection, data, part)
                if failure != NONE:
                    return failure
                frame.left -= part
                data += part
                size -= part
                continue
            frame.header[frame.size] = data[0]
            frame.size += 1
            data += 1
            size -= 1
            if frame.size < 2:
                continue
            if frame.header[1] & MASKED:
                return MALFORMED_RESPONSE  # a server masks nothing (5.1)
            if (frame.header[0] & OPCODE) not in (CONTINUATION, BINARY):
                return UNEXPECTED_PACKET
            if frame.header[1] == EIGHT_BYTES:
                return MALFORMED_RESPONSE  # more than 64 KiB of acknowledgements
            if frame.header[1] != TWO_BYTES:
                frame.left = frame.header[1]
            elif frame.size == HEADER_SIZE_MAX:
                frame.left = frame.header[2] << 8 | frame.header[3]
            else:
                continue
            frame.size = 0
        return NONE
