from libc.stdint cimport uint8_t, uint16_t, uint64_t

from kaa_gateway.wire.buffer cimport Slice


cdef struct ReceivedMessage:
    uint64_t digest       # of topic and payload
    uint16_t packet_id    # 0: the slot is free
    uint8_t generation    # tells messages apart that had the same packet identifier
    uint8_t qos
    uint8_t reason_code   # of its acknowledgement, of MQTT 5
    bint confirmed        # NATS has it, and PUBREC was sent


cdef class ReceivedMessages:
    # state
    cdef ReceivedMessage* slots
    cdef Py_ssize_t capacity  # slots, a power of two; 0 before the first message
    cdef Py_ssize_t count

    cdef ReceivedMessage* find(self, uint16_t packet_id) noexcept
    cdef bint reserve(self) except -1
    cdef ReceivedMessage* free_slot(self, uint16_t packet_id) noexcept
    cdef ReceivedMessage* put(self, uint16_t packet_id) noexcept
    cdef int discard(self, uint16_t packet_id) noexcept
    cdef Py_ssize_t memory(self) noexcept


cdef uint64_t digest_of(Slice topic, Slice payload) noexcept nogil
