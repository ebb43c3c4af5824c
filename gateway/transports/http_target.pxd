from gateway.wire.buffer cimport Buffer


cdef int read_target(bytes target, bytes prefix, Buffer path) except -1
