from kaa_gateway.wire.buffer cimport Slice


cdef class EchoValues:
    # wiring
    cdef bytes secret
    cdef double lifetime   # seconds

    cdef bytes make(self, bytes address, double now)
    cdef bint is_good(self, bytes address, Slice value, double now) except -1
