from kaa_gateway.net.transport cimport ProtocolCore


cdef enum:
    INPUT_FREE = 4096  # bytes of incomplete input that a connection may hold without their being counted


cdef class InputMemory:
    # settings
    cdef Py_ssize_t bytes_max
    # state
    cdef readonly Py_ssize_t bytes     # counted now, of all connections

    cdef bint reserve(self, ProtocolCore core, Py_ssize_t size) noexcept
