from libc.stdint cimport int64_t, uint8_t

from kaa_bench.load.loop cimport Connection, Failure
from kaa_bench.load.stream cimport StreamLoad

cdef enum:
    HEAD_SIZE_MAX = 4096  # bytes of a response's status line and headers
    STATUS_MAX = 599


cdef struct Response:
    # The response that a connection is receiving.
    char head[HEAD_SIZE_MAX]
    Py_ssize_t head_size
    int64_t body_left  # bytes; -1 while the head is incomplete


cdef class HttpLoad(StreamLoad):
    # state
    cdef Response* responses

    # counters of a run
    cdef int64_t statuses[STATUS_MAX + 1]

    cdef Failure head_complete(self, Response* response, Py_ssize_t size) noexcept nogil
