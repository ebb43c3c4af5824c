from libc.stdint cimport int64_t, uint8_t

from kaa_bench.load.loop cimport Connection, Failure
from kaa_bench.load.stream cimport StreamLoad

cdef enum:
    PACKET_SIZE_MAX = 2048  # bytes of a response with its header


cdef struct Partial:
    # The beginning of a response, of which the rest has not arrived.
    uint8_t data[PACKET_SIZE_MAX]
    Py_ssize_t size


cdef class MqttRequestLoad(StreamLoad):
    # wiring
    cdef Py_ssize_t request_id_offset  # in a message

    # state
    cdef Partial* partials

    # counters of a run
    cdef int64_t refused

    cdef Py_ssize_t cut(self, Connection* connection, const uint8_t* data, Py_ssize_t size, Failure* failure) \
        noexcept nogil
    cdef Failure answered(self, Connection* connection, const uint8_t* topic, Py_ssize_t size) noexcept nogil
