from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kaa_gateway.counters cimport Counters


cdef struct Bucket:
    # A token bucket with the tokens of one second at most. Below zero it is in debt: the bytes had been read already.
    double tokens
    double at          # loop time at which the tokens were counted


cdef class Source:
    cdef Py_ssize_t connections   # open ones
    cdef Bucket message_bucket
    cdef Bucket byte_bucket


cdef class Admission:
    # wiring
    cdef Counters counters
    # settings; 0 is no limit
    cdef Py_ssize_t sources_max
    cdef Py_ssize_t half_open_max
    cdef double message_rate           # a second, of a connection
    cdef double byte_rate
    cdef Py_ssize_t source_connections
    cdef double source_message_rate    # a second, of a source
    cdef double source_byte_rate
    cdef bint rates                    # some rate is limited, of connections or sources
    cdef bint source_rates             # some rate of sources is
    cdef bint knows_sources            # something is limited by source, so the table is kept
    # state
    cdef uint32_t rates_begun          # how often rates may have begun: what was read before is not charged
    cdef object sources                # OrderedDict of address -> Source, the oldest first

    cdef Source source(self, bytes address, double now)
    cdef Source open(self, bytes address, double now)
    cdef int close(self, bytes address, Source source) except -1
    cdef double charge(
        self, Bucket* message_bucket, Bucket* byte_bucket, Source source, uint64_t count, Py_ssize_t size, double now
    ) except -1
    cdef bint allows(self, bytes address, Py_ssize_t size, double now) except -1


cdef bytes source_of(const uint8_t* address, Py_ssize_t size)
cpdef str address_text(bytes address)
