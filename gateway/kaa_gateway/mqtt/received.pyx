"""The messages of one client that are not acknowledged yet: which packet identifiers stand for which message.

Those of QoS 2 are here from PUBLISH to PUBREL. Those of QoS 1 are here, of MQTT 5 only, until PUBACK, which may refuse
the message.

A slot takes 16 bytes, because a client may use all 65,535 packet identifiers at once. It has a digest of its message: a
client that has lost its state may use an identifier again for another message. The digest tells the two apart.

Source: MQTT 3.1.1 sections 2.3.1 (packet identifiers), 4.3.3 (QoS 2); MQTT 5 section 3.4.2.1 (reason codes).
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from kaa_gateway.wire.mqtt cimport PUBACK, PUBREC, SUCCESS, UNSPECIFIED_ERROR

cdef enum:
    CAPACITY_MIN = 8      # slots
    CAPACITY_KEPT = 64    # slots of an empty table whose memory is not given back


cdef class ReceivedMessages:
    """A hash table of messages by packet identifier, with linear probing, at most half full.

    Pointers to messages are valid until the next `reserve` or `discard`.
    """

    def __dealloc__(self):
        free(self.slots)

    cdef Py_ssize_t memory(self) noexcept:
        """Return the bytes that the table takes."""
        return self.capacity * <Py_ssize_t>sizeof(ReceivedMessage)

    cdef ReceivedMessage* find(self, uint16_t packet_id) noexcept:
        """Return the message of a packet identifier, or NULL. Hot path."""
        cdef Py_ssize_t at = packet_id & (self.capacity - 1)
        if self.capacity == 0:
            return NULL
        while self.slots[at].packet_id:
            if self.slots[at].packet_id == packet_id:
                return &self.slots[at]
            at = (at + 1) & (self.capacity - 1)
        return NULL

    cdef bint reserve(self) except -1:
        """Make room for one more message. Return whether the table has grown. Hot path."""
        cdef ReceivedMessage* old = self.slots
        cdef Py_ssize_t at, size = self.capacity
        if 2 * (self.count + 1) <= self.capacity:
            return False
        self.slots = <ReceivedMessage*>calloc(<size_t>max(2 * size, CAPACITY_MIN), sizeof(ReceivedMessage))
        if self.slots == NULL:
            self.slots = old
            raise MemoryError
        self.capacity = max(2 * size, CAPACITY_MIN)
        for at in range(size):
            if old[at].packet_id:
                self.free_slot(old[at].packet_id)[0] = old[at]
        free(old)
        return True

    cdef ReceivedMessage* free_slot(self, uint16_t packet_id) noexcept:
        """Return the slot where a packet identifier goes that is not in the table."""
        cdef Py_ssize_t at = packet_id & (self.capacity - 1)
        while self.slots[at].packet_id:
            at = (at + 1) & (self.capacity - 1)
        return &self.slots[at]

    cdef ReceivedMessage* put(self, uint16_t packet_id) noexcept:
        """Return the message of a packet identifier, which is added if it is not there. Hot path.

        `reserve` was called before.
        """
        cdef ReceivedMessage* message = self.find(packet_id)
        if message == NULL:
            message = self.free_slot(packet_id)
            message.packet_id = packet_id
            self.count += 1
        return message

    cdef int discard(self, uint16_t packet_id) noexcept:
        """Remove the message of a packet identifier, if it is there. Hot path."""
        cdef ReceivedMessage* message = self.find(packet_id)
        cdef Py_ssize_t hole, at, home, mask = self.capacity - 1
        if message == NULL:
            return 0
        self.count -= 1
        if self.count == 0 and self.capacity > CAPACITY_KEPT:
            free(self.slots)
            self.slots = NULL
            self.capacity = 0
            return 0
        # Move back the messages behind it whose search passes the hole, so that no search ends there too early.
        at = hole = message - self.slots
        while True:
            at = (at + 1) & mask
            if self.slots[at].packet_id == 0:
                break
            home = self.slots[at].packet_id & mask
            if ((at - home) & mask) >= ((at - hole) & mask):
                self.slots[hole] = self.slots[at]
                hole = at
        self.slots[hole].packet_id = 0
        return 0

    # ------------------------------------------------------------ from PUBLISH to the end of its exchange

    cdef bint is_repeated(self, uint16_t packet_id, uint64_t digest, bint* confirmed) noexcept:
        """Return whether a QoS 2 message is sent again, and whether NATS has it by now (4.3.3)."""
        cdef ReceivedMessage* message = self.find(packet_id)
        if message == NULL or message.qos != 2 or message.digest != digest:
            return False
        confirmed[0] = message.confirmed
        return True

    cdef uint32_t open(self, uint16_t packet_id, uint8_t qos, uint64_t digest) noexcept:
        """Enter a message, and return its token. Hot path. `reserve` was called before.

        A packet identifier in use with another message is that of a client which has lost its state.
        """
        cdef ReceivedMessage* message
        cdef Py_ssize_t before = self.count
        message = self.put(packet_id)
        self.unacknowledged += <uint32_t>(self.count - before)
        self.generation = self.generation % 255 + 1
        message.digest = digest
        message.qos = qos
        message.generation = self.generation
        message.reason_code = SUCCESS
        message.confirmed = False
        return (
            <uint32_t>self.generation << GENERATION_SHIFT
            | <uint32_t>(PUBACK if qos == 1 else PUBREC) << PACKET_TYPE_SHIFT | packet_id
        )

    cdef int close(self, uint16_t packet_id) noexcept:
        """Remove a message that has its PUBACK or PUBCOMP: it leaves the Receive Maximum (MQTT 5, 4.9). Hot path."""
        cdef Py_ssize_t before = self.count
        self.discard(packet_id)
        if self.count != before and self.unacknowledged:  # those of former connections are not counted
            self.unacknowledged -= 1
        return 0

    cdef bint refuse(self, uint16_t packet_id, uint8_t reason_code, bytes reason) except -1:
        """Have the acknowledgement of a message refuse it (MQTT 5, 4.3). Return False if that has been sent.

        `reason` is its Reason String, or None.
        """
        cdef ReceivedMessage* message = self.find(packet_id)
        if message == NULL or message.confirmed:
            return False
        message.reason_code = reason_code
        if reason is not None:
            if self.refusals is None:
                self.refusals = {}
            self.refusals[packet_id] = reason
        return True

    cdef bint acknowledge(self, uint32_t token, uint8_t* reason_code) noexcept:
        """Note that NATS has a message, or that it is refused, and set its reason code. Hot path.

        Return False if the client asks no more: after its PUBREL, or with another message under the identifier.
        """
        cdef uint16_t packet_id = <uint16_t>(token & 0xFFFF)
        cdef ReceivedMessage* message = self.find(packet_id)
        if message == NULL or message.generation != <uint8_t>(token >> GENERATION_SHIFT):
            return False
        reason_code[0] = message.reason_code
        if message.qos == 2 and message.reason_code < UNSPECIFIED_ERROR:
            message.confirmed = True
        else:
            self.close(packet_id)
        return True

    cdef bytes take_reason(self, uint16_t packet_id):
        """Return the Reason String of a refusal, and forget it; None if there is none."""
        return None if self.refusals is None else <bytes>self.refusals.pop(packet_id, None)


cdef inline uint64_t mixed(uint64_t digest, const uint8_t* data, Py_ssize_t size) noexcept nogil:
    cdef uint64_t word
    digest ^= <uint64_t>size
    while size > 0:
        word = 0
        memcpy(&word, data, <size_t>min(size, 8))
        digest = (digest ^ word) * 0x9E3779B97F4A7C15ULL
        digest ^= digest >> 32
        data += 8
        size -= 8
    return digest


cdef uint64_t digest_of(Slice topic, Slice payload) noexcept nogil:
    """Return a digest of a message, which only has to tell the messages of one client apart. Hot path."""
    return mixed(mixed(0x51A7B2C3D4E5F607ULL, topic.data, topic.size), payload.data, payload.size)


# ---------------------------------------------------------------- for tests

def check(list steps):
    """Apply ("put" or "discard", packet identifier) steps to a table. Return (its identifiers, bytes)."""
    cdef ReceivedMessages table = ReceivedMessages()
    cdef uint16_t packet_id
    for step, packet_id in steps:
        if step == "put":
            table.reserve()
            table.put(packet_id).digest = packet_id
        else:
            table.discard(packet_id)
    found = set()
    for number in range(1, 65536):
        packet_id = number
        if table.find(packet_id) != NULL:
            assert table.find(packet_id).digest == packet_id
            found.add(number)
    assert len(found) == table.count
    return found, table.memory()
