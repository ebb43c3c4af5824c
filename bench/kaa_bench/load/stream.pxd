from libc.stdint cimport int64_t, uint8_t

from kaa_bench.load.loop cimport Connection, Failure, Load


cdef struct Stream:
    # The output of a connection that is not written yet.
    Py_ssize_t unsent         # bytes of issued messages that the socket has not taken yet
    Py_ssize_t fence_unsent   # bytes of the fence that the socket has not taken yet
    bint fenced               # the fence was answered, or none is needed


cdef class StreamLoad(Load):
    # wiring
    cdef Stream* streams      # by the index of the connection
    cdef uint8_t* received_bytes
    cdef bint encrypted       # the sockets are of class ssl.SSLSocket

    # what is sent
    cdef bytes fence
    cdef const uint8_t* fence_data
    cdef Py_ssize_t fence_size

    # implemented by protocols
    cdef void stamp(self, Connection* connection, uint8_t* message) noexcept nogil
    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil

    cdef ssize_t receive(self, Connection* connection) noexcept nogil
    cdef ssize_t transmit(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil
    cdef ssize_t receive_encrypted(self, int index) noexcept with gil
    cdef ssize_t transmit_encrypted(self, int index, const uint8_t* data, Py_ssize_t size) noexcept with gil
    cdef void end(self, Connection* connection) noexcept nogil
