"""Loads of MQTT: PUBLISH packets that are acknowledged or followed by a PINGREQ, and requests with responses.

MqttLoad publishes at QoS 0 with a PINGREQ as the fence, or at QoS 1 with a window. It accepts a PUBACK for each PUBLISH
in their order, and PINGRESP. A PUBACK of MQTT 5 may have a reason code; one that refuses is counted as an
error. MqttRequestLoad publishes at QoS 0 with a request ID; the extension answers with a PUBLISH in the order of the
requests, on `<request topic>/status` or, counted as an error, `<request topic>/error`. Any other packet is a failure.
The packets are made in packets.py.

Source: MQTT 3.1.1, sections 2.3.1, 3.3, 3.4, 3.13, 4.6; MQTT 5.0, section 3.4; 1/KP.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memmove

from kaa_bench.load.loop cimport MALFORMED_RESPONSE, NONE, UNEXPECTED_PACKET, WRONG_IDENTIFIER
from kaa_bench.load.stream cimport Stream

cdef enum:
    PUBACK = 0x40             # first byte
    PUBACK_SIZE = 4           # bytes, without reason code
    REFUSED = 0x80            # the first reason code that refuses
    PINGRESP = 0xD0           # first byte; nothing follows the remaining length
    IDENTIFIER_MAX = 0xFFFF   # 0 is not a packet identifier


cdef inline int identifier_of(int64_t message) noexcept nogil:
    """Return the packet identifier of the n-th message of a run, from 0."""
    return <int>(message % IDENTIFIER_MAX) + 1


# Requests
cdef enum:
    PUBLISH = 3                 # packet type
    QOS_BITS = 0x06
    LENGTH_SIZE_MAX = 4         # bytes of a remaining length
    REQUEST_ID_SIZE = 8         # digits
    REQUEST_ID_FIRST = 10_000_000
    REQUEST_IDS = 90_000_000
    STATUS_SIZE = 7             # of "/status"
    ERROR_SIZE = 6              # of "/error"

REQUEST_ID_DIGITS = REQUEST_ID_SIZE


cdef inline void put_request_id(uint8_t* at, int64_t message) noexcept nogil:
    """Write the request ID of the n-th message of a run, in decimal."""
    cdef int64_t value = REQUEST_ID_FIRST + message % REQUEST_IDS
    cdef int digit
    for digit in range(REQUEST_ID_SIZE - 1, -1, -1):
        at[digit] = <uint8_t>(c"0" + value % 10)
        value //= 10


cdef class MqttLoad(StreamLoad):
    """Publishes on sockets past CONNACK.

    `identifier_offset` is the offset of the packet identifier in a message; None with QoS 0, when `fence` is a PINGREQ.
    `reason_codes` is whether a PUBACK may have one, as in MQTT 5.
    """

    def __cinit__(
        self, sockets, messages, int window, *, bytes fence=b"", identifier_offset=None, bint reason_codes=False
    ):
        if (identifier_offset is None) != bool(fence):
            raise ValueError("QoS 0 needs a fence, QoS 1 a packet identifier")
        self.identifier_offset = identifier_offset or 0
        self.reason_codes = reason_codes
        if not 0 <= self.identifier_offset <= self.message_size - 2 or window > IDENTIFIER_MAX:
            raise ValueError("the packet identifier lies outside the message, or the window outside the identifiers")
        self.answers = <Answer*>calloc(self.count, sizeof(Answer))
        if self.answers == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.answers)

    cdef void stamp(self, Connection* connection, uint8_t* message) noexcept nogil:
        """Write the next packet identifier into the message. Hot path."""
        cdef int identifier
        if self.identifier_offset:
            identifier = identifier_of(connection.issued)
            message[self.identifier_offset] = <uint8_t>(identifier >> 8)
            message[self.identifier_offset + 1] = <uint8_t>(identifier & 0xFF)

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Cut the bytes into answers; the beginning of an incomplete one is kept in `answers`. Hot path."""
        cdef Answer* answer = &self.answers[connection.index]
        cdef Failure failure
        cdef Py_ssize_t part
        cdef int length
        while size:
            if answer.size == 0 and size >= PUBACK_SIZE and data[0] == PUBACK and data[1] == PUBACK_SIZE - 2 \
                    and not answer.skipped:
                failure = self.answered(connection, data)
                if failure != NONE:
                    return failure
                data += PUBACK_SIZE
                size -= PUBACK_SIZE
                continue
            if answer.skipped:
                part = min(<Py_ssize_t>answer.skipped, size)
                answer.skipped -= <int>part
                data += part
                size -= part
                continue
            answer.data[answer.size] = data[0]
            answer.size += 1
            data += 1
            size -= 1
            if answer.size < 2:
                continue
            if answer.data[1] & 0x80 or (
                answer.data[0] == PUBACK and answer.data[1] != PUBACK_SIZE - 2
                and (answer.data[1] < PUBACK_SIZE - 2 or not self.reason_codes)
            ):
                return MALFORMED_RESPONSE
            length = 2 + answer.data[1]
            if answer.size == min(length, <int>ANSWER_SIZE):
                answer.skipped = length - answer.size
                answer.size = 0
                failure = self.answered(connection, answer.data)
                if failure != NONE:
                    return failure
        return NONE

    cdef Failure answered(self, Connection* connection, const uint8_t* packet) noexcept nogil:
        """Handle a PUBACK, up to its reason code, or the beginning of another packet. Hot path."""
        cdef Stream* stream = &self.streams[connection.index]
        if packet[0] == PUBACK and not self.fence_size:
            if packet[1] != PUBACK_SIZE - 2 and packet[PUBACK_SIZE] >= REFUSED:
                self.refused += 1
            # A PUBACK for a message that was not sent yet is wrong as well.
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

    cdef dict refusals(self):
        errors = {"refused": self.refused} if self.refused else {}
        self.refused = 0
        return errors


cdef class MqttRequestLoad(StreamLoad):
    """Sends requests on sockets past CONNACK.

    `request_id_offset` is the offset of the request ID, of 8 digits; a copy of it stands at `counter_offset`, if given.
    """

    def __cinit__(self, sockets, messages, int window, *, Py_ssize_t request_id_offset, counter_offset=None):
        self.request_id_offset = request_id_offset
        self.counter_offset = 0 if counter_offset is None else counter_offset
        if not 0 < self.request_id_offset <= self.message_size - REQUEST_ID_SIZE:
            raise ValueError("the request ID lies outside the message")
        if not 0 <= self.counter_offset <= self.message_size - REQUEST_ID_SIZE:
            raise ValueError("the counter lies outside the message")
        self.partials = <Partial*>calloc(self.count, sizeof(Partial))
        if self.partials == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.partials)

    cdef dict refusals(self):
        errors = {"error response": self.refused} if self.refused else {}
        self.refused = 0
        return errors

    cdef void stamp(self, Connection* connection, uint8_t* message) noexcept nogil:
        put_request_id(message + self.request_id_offset, connection.issued)
        if self.counter_offset:
            put_request_id(message + self.counter_offset, connection.issued)

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Cut the bytes into responses; the beginning of an incomplete one is kept in `partials`. Hot path."""
        cdef Partial* partial = &self.partials[connection.index]
        cdef Failure failure = NONE
        cdef Py_ssize_t part, at, used
        while size:
            part = min(size, PACKET_SIZE_MAX - partial.size)
            memcpy(partial.data + partial.size, data, <size_t>part)
            partial.size += part
            data += part
            size -= part
            at = 0
            while at < partial.size:
                used = self.cut(connection, partial.data + at, partial.size - at, &failure)
                if failure != NONE:
                    return failure
                if used == 0:
                    break
                at += used
            partial.size -= at
            memmove(partial.data, partial.data + at, <size_t>partial.size)
            if partial.size == PACKET_SIZE_MAX:
                return MALFORMED_RESPONSE
        return NONE

    cdef Py_ssize_t cut(
        self, Connection* connection, const uint8_t* data, Py_ssize_t size, Failure* failure
    ) noexcept nogil:
        """Handle the packet at the beginning of the bytes. Return its size, 0 if more bytes are needed. Hot path."""
        cdef Py_ssize_t length = 0, at = 1, topic_size
        cdef int shift = 0
        while True:
            if at > LENGTH_SIZE_MAX:
                failure[0] = MALFORMED_RESPONSE
                return 0
            if at == size:
                return 0
            length |= <Py_ssize_t>(data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not data[at - 1] & 0x80:
                break
        if size < at + length:
            return 0
        if data[0] >> 4 != PUBLISH or data[0] & QOS_BITS or length < 2:
            failure[0] = UNEXPECTED_PACKET
            return 0
        topic_size = data[at] << 8 | data[at + 1]
        failure[0] = MALFORMED_RESPONSE if length < 2 + topic_size else \
            self.answered(connection, data + at + 2, topic_size)
        return at + length

    cdef Failure answered(self, Connection* connection, const uint8_t* topic, Py_ssize_t size) noexcept nogil:
        """Handle a response, whose topic names the request. Hot path."""
        cdef uint8_t[REQUEST_ID_SIZE] request_id
        cdef Py_ssize_t end_size
        if connection.acknowledged >= self.written(connection):
            return UNEXPECTED_PACKET
        if size > STATUS_SIZE + REQUEST_ID_SIZE and memcmp(topic + size - STATUS_SIZE, b"/status", STATUS_SIZE) == 0:
            end_size = STATUS_SIZE
        elif size > ERROR_SIZE + REQUEST_ID_SIZE and memcmp(topic + size - ERROR_SIZE, b"/error", ERROR_SIZE) == 0:
            end_size = ERROR_SIZE
            self.refused += 1
        else:
            return UNEXPECTED_PACKET
        put_request_id(request_id, connection.acknowledged)
        if memcmp(topic + size - end_size - REQUEST_ID_SIZE, request_id, REQUEST_ID_SIZE) != 0:
            return WRONG_IDENTIFIER
        self.timed(connection, connection.acknowledged)
        connection.acknowledged += 1
        return NONE
