from libc.stdint cimport int32_t, uint8_t, uint16_t, uint64_t

cdef enum:
    PUBLICATIONS_MAX = 16     # QoS 1 messages of a client that are remembered


cdef enum PublicationState:
    UNUSED
    WAITING       # for its PUBACK
    ACKNOWLEDGED


cdef struct Publication:
    uint64_t digest           # of topic and payload
    uint16_t message_id
    uint16_t topic_id
    uint8_t state


cdef class Publications:
    # state
    cdef Publication[PUBLICATIONS_MAX] entries
    cdef int oldest           # index of the entry that was used longest ago

    cdef Publication* find(self, uint16_t message_id) noexcept
    cdef bint add(self, uint16_t message_id, uint16_t topic_id, uint64_t digest) noexcept
    cdef int32_t acknowledge(self, uint16_t message_id) noexcept
