from libc.stdint cimport uint64_t

from kaa_gateway.wire.buffer cimport Slice


cdef enum:
    REMEMBERED = 32   # pushes


cdef class RecentPushes:
    # state
    cdef uint64_t[REMEMBERED] digests
    cdef int count
    cdef int next            # where the next one goes

    cdef bint has(self, uint64_t digest) noexcept
    cdef int add(self, uint64_t digest) noexcept
    cdef list copy(self)


cdef uint64_t digest_of_push(Slice correlation_id, Slice resource_path, Slice payload) noexcept nogil
