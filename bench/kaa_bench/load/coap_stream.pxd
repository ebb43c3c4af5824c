from libc.stdint cimport int64_t, uint8_t

from kaa_bench.load.loop cimport Failure
from kaa_bench.load.stream cimport StreamLoad

cdef enum:
    FRONT_SIZE_MAX = 16  # bytes of a message that are looked at: more than length, code and extended token length
    CODES = 256


cdef struct Incoming:
    # The message that a connection is receiving.
    uint8_t front[FRONT_SIZE_MAX]
    Py_ssize_t front_size
    int64_t left  # bytes; -1 while its size is not known


cdef class CoapStreamLoad(StreamLoad):
    # state
    cdef Incoming* incoming

    # counters of a run
    cdef int64_t refused[CODES]

    cdef Failure complete(self, uint8_t code) noexcept nogil
