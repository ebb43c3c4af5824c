from libc.stdint cimport int64_t, uint64_t


cdef class ConnectNumbers:
    # state
    cdef uint64_t tag          # of this worker, in numbers
    cdef uint64_t last
    cdef int64_t ahead         # us by which the clock of another worker was ahead of ours

    cdef uint64_t next(self) noexcept
    cdef uint64_t after(self, uint64_t number) noexcept
    cdef int observe(self, uint64_t number) except -1
