from libc.stdint cimport uint64_t


cdef class Entry:
    cdef object key
    cdef object value
    cdef double valid_until    # by clock.monotonic
    cdef uint64_t generation   # of the cache, in which the value is valid
    cdef Entry older           # the one used before it, or None
    cdef Entry newer


cdef class Cache:
    # wiring
    cdef Py_ssize_t capacity
    cdef object forgotten
    # state
    cdef dict entries          # key -> Entry
    cdef Entry oldest          # the least recently used, or None
    cdef Entry newest
    cdef uint64_t generation
    # counters
    cdef readonly uint64_t hits
    cdef readonly uint64_t misses
    cdef readonly uint64_t evicted

    cdef object find(self, key)
    cdef int link(self, Entry entry) except -1
    cdef int unlink(self, Entry entry) except -1
    cpdef int forget(self, key) except -1
