"""A load of MQTT PUBLISH packets: QoS 0 with a PINGREQ as the fence, or QoS 1 with a window.

What lives here is the packet identifiers and what the server may answer: PUBACK in the order of the PUBLISH
packets, and PINGRESP. Anything else is a failure: these devices subscribe to nothing and ask for no response. The
packets are made in packets.py.

Source: MQTT 3.1.1, sections 2.3.1, 3.4, 3.13, 4.6.
"""

from libc.stdlib cimport calloc, free

from kaa_bench.load.loop cimport MALFORMED_RESPONSE, NONE, UNEXPECTED_PACKET, WRONG_IDENTIFIER
from kaa_bench.load.stream cimport Stream

cdef enum:
    PUBACK = 0x40             # first byte; 2 bytes follow the remaining length
    PINGRESP = 0xD0           # first byte; nothing follows the remaining length
    IDENTIFIER_MAX = 0xFFFF   # 0 is not a packet identifier


cdef inline int identifier_of(int64_t message) noexcept nogil:
    """The packet identifier of the n-th message of a run, from 0."""
    return <int>(message % IDENTIFIER_MAX) + 1


cdef class MqttLoad(StreamLoad):
    """Publishes on sockets past CONNACK.

    `identifier_offset` is where the packet identifier lies in a message; None with QoS 0, when `fence` is a PINGREQ.
    """

    def __cinit__(self, sockets, messages, int window, *, bytes fence=b"", identifier_offset=None):
        if (identifier_offset is None) != bool(fence):
            raise ValueError("QoS 0 needs a fence, QoS 1 a packet identifier")
        self.identifier_offset = identifier_offset or 0
        if not 0 <= self.identifier_offset <= self.message_size - 2 or window > IDENTIFIER_MAX:
            raise ValueError("the packet identifier lies outside the message, or the window outside the identifiers")
        self.answers = <Answer*>calloc(self.count, sizeof(Answer))
        if self.answers == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.answers)

    cdef void stamp(self, Connection* connection, uint8_t* message) noexcept nogil:
        """Give the message the next packet identifier. Hot path."""
        cdef int identifier
        if self.identifier_offset:
            identifier = identifier_of(connection.issued)
            message[self.identifier_offset] = <uint8_t>(identifier >> 8)
            message[self.identifier_offset + 1] = <uint8_t>(identifier & 0xFF)

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Cut the bytes into answers; the head of an incomplete one waits in `answers`. Hot path."""
        cdef Answer* answer = &self.answers[connection.index]
        cdef Failure failure
        cdef int length
        while size:
            if answer.size == 0 and size >= ANSWER_SIZE and data[0] == PUBACK:
                failure = self.answered(connection, data)
                if failure != NONE:
                    return failure
                data += ANSWER_SIZE
                size -= ANSWER_SIZE
                continue
            answer.data[answer.size] = data[0]
            answer.size += 1
            data += 1
            size -= 1
            length = ANSWER_SIZE if answer.data[0] == PUBACK else 2
            if answer.size == length:
                answer.size = 0
                failure = self.answered(connection, answer.data)
                if failure != NONE:
                    return failure
        return NONE

    cdef Failure answered(self, Connection* connection, const uint8_t* packet) noexcept nogil:
        """One whole PUBACK, or the first two bytes of anything else. Hot path."""
        cdef Stream* stream = &self.streams[connection.index]
        if packet[0] == PUBACK and not self.fence_size:
            if packet[1] != 2:
                return MALFORMED_RESPONSE
            # Also refuses what acknowledges a message that has not left yet.
            if connection.acknowledged >= self.written(connection):
                return WRONG_IDENTIFIER
            if (packet[2] << 8 | packet[3]) != identifier_of(connection.acknowledged):
                return WRONG_IDENTIFIER
            self.timed(connection, connection.acknowledged)
            connection.acknowledged += 1
            return NONE
        if packet[0] == PINGRESP and self.fence_size and not stream.fence_unsent and not stream.fenced:
            stream.fenced = True
            return NONE if packet[1] == 0 else MALFORMED_RESPONSE
        return UNEXPECTED_PACKET
