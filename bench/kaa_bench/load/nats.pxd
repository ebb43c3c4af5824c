from libc.stdint cimport int64_t, uint8_t

from kaa_bench.load.loop cimport Connection, Failure
from kaa_bench.load.stream cimport StreamLoad
from kaa_gateway.wire.buffer cimport Buffer, Slice

cdef enum:
    LINE_SIZE_MAX = 1024  # bytes of a line from the server


cdef struct Reply:
    # The line that a connection is receiving, or the payload after a MSG line.
    char line[LINE_SIZE_MAX]
    Py_ssize_t line_size
    Py_ssize_t payload_left  # bytes, including the line break after the payload


cdef class NatsRequestLoad(StreamLoad):
    # state
    cdef Reply* replies

    cdef Failure line_complete(self, Connection* connection, Reply* reply) noexcept nogil


cdef class NatsSink:
    # wiring
    cdef object socket
    cdef int fd
    cdef bytes extension      # of the ExtensionData sent; None: nothing is answered
    cdef uint8_t* buffer      # received bytes: `size` of them, an incomplete message at the front
    cdef Buffer out           # answers to the messages of one read
    cdef Buffer datum         # the ExtensionData of one answer

    # state
    cdef Py_ssize_t size

    # counters
    cdef readonly int64_t received

    cdef int receive(self) except -1
    cdef Py_ssize_t take(self, const uint8_t* data, Py_ssize_t size, int64_t timestamp) except -1
    cdef Py_ssize_t take_control(self, bytes line) except -1
    cdef int answer(self, Slice reply_to, const uint8_t* data, Py_ssize_t size, int64_t timestamp) except -1
    cdef int flush(self) except -1
