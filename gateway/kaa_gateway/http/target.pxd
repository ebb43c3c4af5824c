from kaa_gateway.wire.buffer cimport Buffer


cdef bint wants_no_answer(bytes target) noexcept
cdef int read_target(bytes target, bytes prefix, Buffer path) except -1
