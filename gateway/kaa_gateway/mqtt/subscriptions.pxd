from libc.stdint cimport uint8_t

from kaa_gateway.wire.buffer cimport Slice


cdef class Subscriptions:
    # state
    cdef dict granted            # topic filter -> granted QoS
    cdef uint8_t highest_granted  # QoS, never less than the highest among the topic filters

    cdef int add(self, bytes topic_filter, uint8_t qos) except -1
    cdef int remove(self, bytes topic_filter) except -1
    cdef uint8_t qos_of(self, Slice topic) except? 0xFF


cdef bint matches(Slice topic_filter, Slice topic) noexcept nogil
