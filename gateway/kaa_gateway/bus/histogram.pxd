from libc.stdint cimport uint64_t

cdef enum:
    BUCKET_COUNT = 18   # the last is without an upper bound


cdef class Histogram:
    # counters
    cdef uint64_t[BUCKET_COUNT] counts
    cdef double sum

    cdef void observe(self, double seconds) noexcept
