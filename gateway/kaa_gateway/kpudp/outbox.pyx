"""What the KP/UDP server sends: frames of a tick gathered in datagrams, sent again until answered, within the limit.

The limit is that a peer which has not proved its address gets at most three times the bytes that it has sent. What the
messages mean is kpudp_peer.pyx's.

Source: docs/kp-over-udp.md, "Confirmable messages" and "Peers, and their address".
"""

import os
import random

from libc.string cimport memcmp, memcpy

from kaa_gateway.wire.kpudp cimport (
    DATAGRAM_SIZE_MAX, HEAD_SIZE, HEAD_SIZE_MAX, HEADER_SIZE, PING, PING_DATA_SIZE_MAX, PONG, RESET_SIZE, put_ack,
    put_header, put_probe, put_reset,
)

cdef enum:
    AMPLIFICATION_MAX = 3    # bytes to a peer for each byte from it, until its address is proved
    TRANSMISSIONS = 6        # of a confirmable message
    TICKS_PER_SECOND = 10    # of the wheel
    SPARE_BUFFERS = 256      # kept between ticks

# Part of the first wait that is random, so that messages lost together do not come again together.
cdef double JITTER = 0.5


cdef class Outgoing:
    """A confirmable message of ours, until it is answered or given up."""


cdef class Correspondent(Entry):
    """A peer, as far as sending to it goes."""

    def __cinit__(self):
        self.unacknowledged = {}
        self.last_message_id = <uint16_t>random.getrandbits(16)

    cdef uint8_t* room(self, Py_ssize_t size) except? NULL:
        """Where a frame of `size` bytes goes in the datagram of this tick, or NULL if the limit forbids it. Hot path.

        The caller writes exactly `size` bytes there.
        """
        cdef uint8_t* at
        cdef Py_ssize_t cost = size
        if self.output is not None and self.output.size + size > DATAGRAM_SIZE_MAX:
            self.outbox.send(self)
        if self.output is None:
            cost += HEADER_SIZE
        if not self.proved and self.sent_bytes + <uint64_t>cost > AMPLIFICATION_MAX * self.received_bytes:
            self.counters.count("dropped", "kpudp_amplification")
            return NULL
        self.sent_bytes += <uint64_t>cost
        if self.output is None:
            self.outbox.open_output(self)
        at = self.output.reserve(size)
        self.output.size += size
        return at

    # ------------------------------------------------------------ messages that are not confirmable

    cdef int acknowledge_message(self, uint16_t message_id) except -1:
        """Hot path."""
        cdef uint8_t* at = self.room(HEAD_SIZE)
        if at != NULL:
            put_ack(at, message_id)
        return 0

    cdef int reset(self, uint16_t message_id, uint16_t reason) except -1:
        cdef uint8_t* at = self.room(RESET_SIZE)
        if at != NULL:
            put_reset(at, message_id, reason)
        return 0

    cdef int pong(self, uint16_t message_id, Slice data) except -1:
        cdef uint8_t* at = self.room(HEAD_SIZE_MAX + data.size)
        if at != NULL:
            put_probe(at, PONG, message_id, data, True)
        return 0

    # ------------------------------------------------------------ proof of the address

    cdef int ask_for_proof(self) except -1:
        """Send PING with random bytes, unless that is under way."""
        cdef uint8_t[HEAD_SIZE_MAX + PING_DATA_SIZE_MAX] frame
        cdef bytes data
        cdef uint16_t message_id
        if self.proved or self.challenge is not None or not self.outbox.reserve():
            return 0
        data = os.urandom(PING_DATA_SIZE_MAX)
        message_id = self.next_message_id()
        put_probe(frame, PING, message_id, Slice(<const uint8_t*>data, PING_DATA_SIZE_MAX), True)
        self.challenge = self.begin(PING, message_id, frame[:sizeof(frame)])
        return 0

    cdef bint check_proof(self, uint16_t message_id, Slice data) except -1:
        """Whether a PONG proves the address."""
        cdef Outgoing challenge = self.challenge
        if challenge is None or challenge.message_id != message_id or data.size != PING_DATA_SIZE_MAX \
                or memcmp(<const char*>challenge.frame + HEAD_SIZE_MAX, data.data, PING_DATA_SIZE_MAX) != 0:
            return False
        self.conclude(message_id)
        self.proved = True
        return True

    # ------------------------------------------------------------ confirmable messages

    cdef uint16_t next_message_id(self) except? 0:
        """An ID that no message waiting for its answer has: those are far fewer than there are IDs."""
        self.last_message_id += 1
        while self.last_message_id in self.unacknowledged:
            self.last_message_id += 1
        return self.last_message_id

    cdef Outgoing begin(self, uint8_t type, uint16_t message_id, bytes frame):
        """Send a confirmable message, for which a place is reserved, until it is answered."""
        cdef Outgoing outgoing = Outgoing()
        outgoing.to = self
        outgoing.type = type
        outgoing.message_id = message_id
        outgoing.frame = frame
        outgoing.wait = max(
            <int64_t>(self.outbox.ack_timeout * TICKS_PER_SECOND * (1 + JITTER * <double>random.random())), 1
        )
        self.unacknowledged[message_id] = outgoing
        outgoing.transmissions = 1
        self.transmit(outgoing)
        self.outbox.schedule(outgoing)
        return outgoing

    cdef int transmit(self, Outgoing outgoing) except -1:
        """Put a message into the datagram of this tick."""
        cdef Py_ssize_t size = len(outgoing.frame)
        cdef uint8_t* at = self.room(size)
        if at != NULL:
            memcpy(at, <const char*>outgoing.frame, <size_t>size)
        return 0

    cdef Outgoing conclude(self, uint16_t message_id):
        """A message is answered, or given up: what it was, or None if there is none of this ID."""
        cdef Outgoing outgoing = self.unacknowledged.pop(message_id, None)
        if outgoing is not None:
            outgoing.frame = None
            self.outbox.release()
            if outgoing is self.challenge:
                self.challenge = None
        return outgoing

    cdef int give_up(self, Outgoing outgoing) except -1:
        """A message was sent as often as it may be, and never answered."""
        self.conclude(outgoing.message_id)
        return 0

    cdef int abandon_all(self) except -1:
        """The peer is forgotten: so is what was sent to it, and what would have been in this tick."""
        for message_id in list(self.unacknowledged):
            self.conclude(message_id)
        return 0


cdef class Outbox:
    """The sending side of a worker's KP/UDP. At most `capacity` confirmable messages wait for their answers."""

    def __init__(
        self, loop, DatagramCore core not None, Counters counters not None, Py_ssize_t capacity, double ack_timeout
    ):
        cdef Py_ssize_t longest_wait = <Py_ssize_t>(
            ack_timeout * TICKS_PER_SECOND * (1 + JITTER) * (1 << (TRANSMISSIONS - 1))
        )
        self.loop = loop
        self.core = core
        self.counters = counters
        self.capacity = capacity
        self.ack_timeout = ack_timeout
        self.waiting = []
        self.spare = []
        self.flush_callback = self.flush
        self.wheel = [[] for _ in range(longest_wait + 2)]
        self.started = loop.time()

    # ------------------------------------------------------------ datagrams

    cdef int open_output(self, Correspondent to) except -1:
        """Begin a datagram. Hot path."""
        to.output = self.spare.pop() if self.spare else Buffer()
        put_header(to.output.reserve(DATAGRAM_SIZE_MAX), to.epoch)
        to.output.size = HEADER_SIZE
        if not self.waiting:
            self.loop.call_soon(self.flush_callback)
        self.waiting.append(to)
        return 0

    cdef int send(self, Correspondent to) except -1:
        """Send the datagram of a peer. Hot path."""
        cdef Buffer output = to.output
        if output is None:
            return 0
        to.output = None
        self.core.socket.send(&to.address, output.data, output.size)
        if len(self.spare) < SPARE_BUFFERS:
            output.size = 0
            self.spare.append(output)
        return 0

    def flush(self):
        """The end of a tick."""
        cdef Correspondent to
        waiting = self.waiting
        self.waiting = []
        for to in waiting:
            self.send(to)

    # ------------------------------------------------------------ places and time

    cdef bint reserve(self) noexcept:
        """Take a place for a confirmable message; False if there is none."""
        if self.count >= self.capacity:
            return False
        self.count += 1
        return True

    cdef int release(self) except -1:
        self.count -= 1
        return 0

    cdef int schedule(self, Outgoing outgoing) except -1:
        """Look at a message again when its wait is over."""
        self.wheel[(self.tick + outgoing.wait) % len(self.wheel)].append(outgoing)
        return 0

    cdef int check(self, double now) except -1:
        """Send again what is due at loop time `now`, and give up what was sent often enough."""
        cdef int64_t target = <int64_t>((now - self.started) * TICKS_PER_SECOND)
        cdef int64_t size = len(self.wheel), slot
        cdef Outgoing outgoing
        while self.tick < target:
            self.tick += 1
            slot = self.tick % size
            due = self.wheel[slot]
            if not due:
                continue
            self.wheel[slot] = []
            for outgoing in due:
                if outgoing.frame is None:
                    continue
                if outgoing.transmissions >= TRANSMISSIONS:
                    outgoing.to.give_up(outgoing)
                    continue
                outgoing.transmissions += 1
                outgoing.wait *= 2
                outgoing.to.transmit(outgoing)
                self.schedule(outgoing)
        return 0
