from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from kaa_gateway.wire.buffer cimport Slice


cdef struct ReceivedMessage:
    uint64_t digest       # of topic and payload
    uint16_t packet_id    # 0: the slot is free
    uint8_t generation    # tells messages apart that had the same packet identifier
    uint8_t qos
    uint8_t reason_code   # of its acknowledgement, of MQTT 5
    uint8_t confirmed     # a truth value: NATS has it, and PUBREC was sent


cdef enum:
    # What a message is acknowledged by (Message.token): its packet identifier, above it the packet type of the answer,
    # and above that its generation, which is 0 for a message that is not in the table.
    PACKET_TYPE_SHIFT = 16
    GENERATION_SHIFT = 24


cdef class ReceivedMessages:
    # state
    cdef ReceivedMessage* slots
    cdef Py_ssize_t capacity  # slots, a power of two; 0 before the first message
    cdef Py_ssize_t count
    cdef uint8_t generation       # of the last message
    cdef uint32_t unacknowledged  # messages of this connection without PUBACK or PUBCOMP
    cdef dict refusals            # packet identifier -> Reason String of its acknowledgement; None before the first

    cdef ReceivedMessage* find(self, uint16_t packet_id) noexcept
    cdef bint reserve(self) except -1
    cdef ReceivedMessage* free_slot(self, uint16_t packet_id) noexcept
    cdef ReceivedMessage* put(self, uint16_t packet_id) noexcept
    cdef int discard(self, uint16_t packet_id) noexcept
    cdef Py_ssize_t memory(self) noexcept
    cdef uint32_t open(self, uint16_t packet_id, uint8_t qos, uint64_t digest) noexcept
    cdef int close(self, uint16_t packet_id) noexcept
    cdef bint is_repeated(self, uint16_t packet_id, uint64_t digest, bint* confirmed) noexcept
    cdef bint refuse(self, uint16_t packet_id, uint8_t reason_code, bytes reason) except -1
    cdef bint acknowledge(self, uint32_t token, uint8_t* reason_code) noexcept
    cdef bytes take_reason(self, uint16_t packet_id)


cdef uint64_t digest_of(Slice topic, Slice payload) noexcept nogil
