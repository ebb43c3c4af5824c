"""The messages of ours to one KP/UDP peer: its datagram of this tick, and what is sent until it is acknowledged.

To an address that is not proved, only so much is sent for what was received. A PING with random data proves it.

Source: docs/kp-over-udp.md, "Confirmable messages" and "Peers, and their address".
"""

import os
import random

cimport cython
from libc.string cimport memcmp, memcpy

from kaa_gateway.kpudp.tables cimport TRANSMISSIONS_MAX
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.kpudp cimport (
    DATAGRAM_SIZE_MAX, HEAD_SIZE, HEAD_SIZE_MAX, HEADER_SIZE, PING, PING_DATA_SIZE_MAX, PONG, RESET_SIZE, put_ack,
    put_header, put_probe, put_reset,
)

cdef enum:
    AMPLIFICATION_MAX = 3    # bytes to a peer for each byte from it, until its address is proved
    SPARE_BUFFERS = 256      # kept between ticks


@cython.final
cdef class Outbox:
    """Sends frames to one peer, within the limit that holds until its address is proved."""

    def __cinit__(self):
        self.unacknowledged = {}
        self.last_message_id = <uint16_t>random.getrandbits(16)

    cdef uint8_t* reserve_frame(self, Py_ssize_t size) except? NULL:
        """Return where a frame goes in the datagram of this tick, or NULL if the limit forbids it. Hot path.

        The caller writes exactly `size` bytes there, before anything else is sent.
        """
        cdef uint8_t* at
        cdef Py_ssize_t cost = size
        if self.output is not None and self.output.size + size > DATAGRAM_SIZE_MAX:
            self.send_output()
        if self.output is None:
            cost += HEADER_SIZE
        if not self.place.proved and self.sent_bytes + <uint64_t>cost > AMPLIFICATION_MAX * self.received_bytes:
            self.context.counters.count("dropped", "kpudp_amplification")
            return NULL
        self.sent_bytes += <uint64_t>cost
        if self.output is None:
            self.output = self.context.open_output(self)
            put_header(self.output.reserve(DATAGRAM_SIZE_MAX), self.epoch)
            self.output.size = HEADER_SIZE
        at = self.output.reserve(size)
        self.output.size += size
        return at

    cdef int send_output(self) except -1:
        """Send the datagram of this tick. Hot path."""
        cdef Buffer output = self.output
        if output is None:
            return 0
        self.output = None
        self.context.core.socket.send(&self.place.address, output.data, output.size)
        if len(self.context.spare) < SPARE_BUFFERS:
            output.size = 0
            self.context.spare.append(output)
        return 0

    cdef int send_ack(self, uint16_t message_id) except -1:
        """Send ACK. Hot path."""
        cdef uint8_t* at = self.reserve_frame(HEAD_SIZE)
        if at != NULL:
            put_ack(at, message_id)
        return 0

    cdef int send_reset(self, uint16_t message_id, uint16_t reason) except -1:
        """Send RESET; `reason` is one of ResetReason or an HTTP status."""
        cdef uint8_t* at = self.reserve_frame(RESET_SIZE)
        if at != NULL:
            put_reset(at, message_id, reason)
        return 0

    cdef int send_pong(self, uint16_t message_id, Slice data) except -1:
        """Send PONG with the data of a PING."""
        cdef uint8_t* at = self.reserve_frame(HEAD_SIZE_MAX + data.size)
        if at != NULL:
            put_probe(at, PONG, message_id, data, True)
        return 0

    cdef int challenge_address(self) except -1:
        """Send PING with random bytes, unless the address is proved or that is under way."""
        cdef uint8_t[HEAD_SIZE_MAX + PING_DATA_SIZE_MAX] frame
        cdef bytes data
        cdef uint16_t message_id
        if self.place.proved or self.challenge is not None or not self.context.timer.reserve():
            return 0
        data = os.urandom(PING_DATA_SIZE_MAX)
        message_id = self.next_message_id()
        put_probe(frame, PING, message_id, Slice(<const uint8_t*>data, PING_DATA_SIZE_MAX), True)
        self.challenge = self.send_confirmable(PING, message_id, frame[:sizeof(frame)])
        return 0

    cdef bint is_proof(self, uint16_t message_id, Slice data) noexcept:
        """Return whether a PONG has the data of the PING that is under way."""
        cdef Transmission challenge = self.challenge
        return challenge is not None and challenge.message_id == message_id and data.size == PING_DATA_SIZE_MAX \
            and memcmp(slice_of(challenge.frame).data + HEAD_SIZE_MAX, data.data, PING_DATA_SIZE_MAX) == 0

    cdef uint16_t next_message_id(self) except? 0:
        """Return an ID that none of our unacknowledged messages has. Those are far fewer than there are IDs."""
        self.last_message_id += 1
        while self.last_message_id in self.unacknowledged:
            self.last_message_id += 1
        return self.last_message_id

    cdef Transmission send_confirmable(self, uint8_t type, uint16_t message_id, bytes frame):
        """Send a message until it is acknowledged. The caller has reserved its place in the timer."""
        cdef Transmission transmission = Transmission()
        transmission.peer = self.peer
        transmission.type = type
        transmission.message_id = message_id
        transmission.frame = frame
        self.unacknowledged[message_id] = transmission
        self.transmit(transmission)
        self.context.timer.start(transmission)
        return transmission

    cdef int transmit(self, Transmission transmission) except -1:
        """Put a confirmable message into the datagram of this tick."""
        cdef Py_ssize_t size = len(transmission.frame)
        cdef uint8_t* at = self.reserve_frame(size)
        if at != NULL:
            memcpy(at, <const char*>transmission.frame, <size_t>size)
        return 0

    cdef int transmit_all(self) except -1:
        """Send what the limit has held back: the address is proved."""
        cdef Transmission transmission
        for transmission in self.unacknowledged.values():
            self.transmit(transmission)
        return 0

    cdef bint retransmit(self, Transmission transmission) except -1:
        """Send a message again whose wait is over. Return False if the peer does not acknowledge it."""
        if transmission.frame is None:
            return True  # acknowledged
        if transmission.count < TRANSMISSIONS_MAX:
            self.transmit(transmission)
            self.context.timer.back_off(transmission)
            return True
        if transmission.type != PING:
            return False
        self.complete(transmission.message_id)  # the device may just not listen
        return True

    cdef Transmission complete(self, uint16_t message_id):
        """Give up the place of a message that is acknowledged or given up. Return it, or None if there is none."""
        cdef Transmission transmission = self.unacknowledged.pop(message_id, None)
        if transmission is not None:
            transmission.frame = None
            self.context.timer.release()
            if transmission is self.challenge:
                self.challenge = None
        return transmission

    cdef int close(self) except -1:
        """Give up all messages: the peer is gone."""
        for message_id in list(self.unacknowledged):
            self.complete(message_id)
        self.peer = None
        return 0
