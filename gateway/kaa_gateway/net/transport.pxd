from libc.stdint cimport uint8_t, uint64_t

from kaa_gateway.wire.buffer cimport Buffer


cdef enum:
    INPUT_FREE = 4096  # bytes of incomplete input that a connection may hold without their being counted


cdef class Transport:
    # What a transport core may ask of the adapter that carries its bytes.
    cdef readonly object certificate   # of the peer, which the adapter has verified: a ClientCertificate, or None

    cdef int wake(self) except -1
    cdef int pause_reading(self) except -1
    cdef int resume_reading(self) except -1
    cdef int close(self) except -1


cdef class InputMemory:
    # settings
    cdef Py_ssize_t bytes_max
    # state
    cdef readonly Py_ssize_t bytes     # beyond what is free

    cdef bint take(self, ProtocolCore core, Py_ssize_t size) noexcept


cdef class ProtocolCore:
    # wiring
    cdef Transport transport
    # state
    cdef Buffer output     # what to write at the end of the tick
    cdef Py_ssize_t input_counted  # bytes of InputMemory.bytes that are its own
    cdef uint64_t taken    # packets or requests, whole ones
    cdef bint admitted     # the peer has said who it is, or asked for something
    cdef bint held         # it is not read because it has sent too much, which is not to be taken for silence

    cdef uint64_t packets(self) noexcept
    cdef bint is_admitted(self) noexcept
    cdef int hold(self, bint held) except -1
    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int finish_output(self, bint closing) except -1
    cdef int resume(self) except -1
    cdef int lost(self) except -1
    cdef int end(self, str reason) except -1
    cdef int check(self, double now) except -1
