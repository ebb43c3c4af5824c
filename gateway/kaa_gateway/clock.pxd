from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

# The two clocks of native code. Both are read through the vDSO: no system call.


cdef inline int64_t now_ms() noexcept nogil:
    # Milliseconds since the epoch, as Kaa's messages carry them.
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <int64_t>now.tv_sec * 1000 + now.tv_nsec // 1000000


cdef inline int64_t now_us() noexcept nogil:
    # Microseconds since the epoch.
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <int64_t>now.tv_sec * 1000000 + now.tv_nsec // 1000


cdef inline double monotonic() noexcept nogil:
    # Seconds of a clock that only goes forward. The time of the event loop advances in steps of a millisecond.
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <double>now.tv_sec + <double>now.tv_nsec * 1e-9
