from libc.stdint cimport uint64_t


cdef class RecentKeys:
    # state
    cdef uint64_t* recent         # hash tables of keys, 0 is an empty place; NULL until first used
    cdef uint64_t* before         # the generation before these
    cdef Py_ssize_t count         # of recent

    cdef bint has(self, uint64_t key) noexcept
    cdef int add(self, uint64_t key) except -1
    cdef int allocate(self) except -1
