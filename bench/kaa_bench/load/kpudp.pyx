"""A load of KP/UDP messages that are confirmed, to a path that connecting has given an alias.

What lives here is message IDs and what a server may answer: ACK and RESET, any number in a datagram, and PING, which
PONG answers to prove the address. A RESET is counted as an error under its reason. The messages are made in packets.py.

Source: docs/kp-over-udp.md.
"""

from libc.string cimport memset

from kaa_bench.load.datagram cimport UNKNOWN
from kaa_bench.load.loop cimport MALFORMED_RESPONSE, MSG_DONTWAIT, NONE, UNEXPECTED_PACKET, WRONG_IDENTIFIER, send
from kaa_gateway.wire.kpudp cimport (
    ACK, CONFIRMED_DATA, HEAD_SIZE, HEADER_SIZE, MAGIC, PING, PING_DATA_SIZE_MAX, PONG, RESET, VERSION, WELL_FORMED,
    put_header, put_probe, read_frame,
)

cdef enum:
    EPOCH_OFFSET = 1
    MESSAGE_ID_OFFSET = HEADER_SIZE + 1


cdef class KpUdpLoad(DatagramLoad):
    """Sends datagrams of one CONFIRMED DATA frame, all of one epoch, and fills in the message ID."""

    def __cinit__(self, sockets, messages, int window=1, **_):
        if self.message_size <= HEADER_SIZE + HEAD_SIZE or any(
            message[HEADER_SIZE] != CONFIRMED_DATA or message[EPOCH_OFFSET] != messages[0][EPOCH_OFFSET]
            for message in messages
        ):
            raise ValueError("a message is a datagram with a CONFIRMED DATA frame, all of one epoch")
        self.epoch = messages[0][EPOCH_OFFSET]

    cdef dict refusals(self):
        errors = {f"reset {reason}": self.resets[reason] for reason in range(REASON_MAX + 1) if self.resets[reason]}
        memset(self.resets, 0, sizeof(self.resets))
        return errors

    cdef void stamp(self, Connection* connection, int64_t number, uint8_t* message) noexcept nogil:
        message[MESSAGE_ID_OFFSET] = <uint8_t>(number >> 8 & 0xFF)
        message[MESSAGE_ID_OFFSET + 1] = <uint8_t>(number & 0xFF)

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        cdef Frame frame
        cdef Py_ssize_t at = HEADER_SIZE, consumed = 0
        cdef int64_t number
        if size <= HEADER_SIZE or data[0] != (MAGIC << 4 | VERSION) or data[EPOCH_OFFSET] != self.epoch:
            return MALFORMED_RESPONSE
        while at < size:
            if read_frame(data + at, size - at, &frame, &consumed) != WELL_FORMED:
                return MALFORMED_RESPONSE
            at += consumed
            if frame.type == PING:
                self.pong(connection, &frame)
                continue
            if frame.type != ACK and frame.type != RESET:
                return UNEXPECTED_PACKET
            number = self.find(connection, frame.message_id)
            if number == UNKNOWN or (frame.type == RESET and frame.status > REASON_MAX):
                return WRONG_IDENTIFIER if number == UNKNOWN else MALFORMED_RESPONSE
            if number < 0:
                continue
            if frame.type == ACK:
                connection.acknowledged += 1
            else:
                self.resets[frame.status] += 1
            self.close_message(connection, number)
        return NONE

    cdef void pong(self, Connection* connection, const Frame* frame) noexcept nogil:
        cdef uint8_t[HEADER_SIZE + HEAD_SIZE + PING_DATA_SIZE_MAX] out
        cdef uint8_t* end = put_probe(put_header(out, self.epoch), PONG, frame.message_id, frame.payload, False)
        send(connection.fd, out, end - out, MSG_DONTWAIT)
