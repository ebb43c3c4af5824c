from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kaa_gateway.wire.buffer cimport Slice

# How a message came in, kept in its correlation ID, because that is what comes back. QoS as in MQTT; a request is a
# message of a protocol that must answer it (HTTP, CoAP).
cdef enum Service:
    AT_MOST_ONCE = 0
    AT_LEAST_ONCE = 1
    EXACTLY_ONCE = 2
    REQUEST = 3

cdef enum:
    SLOT_BITS = 24
    GENERATION_BITS = 12
    SEQUENCE_BITS = 28
    SEQUENCE_MASK = (1 << SEQUENCE_BITS) - 1


cdef struct Correlation:
    uint64_t session   # key of the session: slot and generation
    uint32_t sequence  # the session's own count
    Service service


cdef class Correlator:
    # state
    cdef uint64_t tag    # of this worker
    cdef uint32_t count  # of the next ID; it wraps

    cdef void put(self, uint8_t* at, uint64_t session, Service service, uint32_t sequence) noexcept
    cdef bint read(self, Slice text, Correlation* correlation) noexcept


cdef inline uint64_t session_key(uint32_t slot, uint32_t generation) noexcept nogil:
    return <uint64_t>slot << GENERATION_BITS | generation
