from libc.stdint cimport uint8_t

from kaa_bench.load.loop cimport Connection, Failure
from kaa_bench.load.stream cimport StreamLoad

cdef enum:
    LINE_SIZE_MAX = 1024  # bytes of a line from the server


cdef struct Reply:
    # What a connection is receiving: a line, or the payload behind a MSG line.
    char line[LINE_SIZE_MAX]
    Py_ssize_t line_size
    Py_ssize_t payload_left  # bytes, with the line break behind the payload


cdef class NatsRequestLoad(StreamLoad):
    # state
    cdef Reply* replies

    cdef Failure line_complete(self, Connection* connection, Reply* reply) noexcept nogil
