from libc.stdint cimport uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef enum:
    BUCKET_COUNT = 18   # the last is without an upper bound


cdef class Histogram:
    # counters
    cdef uint64_t[BUCKET_COUNT] counts
    cdef double sum

    cdef void observe(self, double seconds) noexcept


cdef inline double monotonic() noexcept nogil:
    # Seconds of a clock that only goes forward, through the vDSO: no system call. The loop counts in milliseconds.
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <double>now.tv_sec + <double>now.tv_nsec * 1e-9
