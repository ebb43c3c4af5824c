from libc.stdint cimport int64_t, uint8_t

from kaa_bench.load.loop cimport Connection, Failure
from kaa_bench.load.stream cimport StreamLoad

cdef enum:
    ANSWER_SIZE = 5         # bytes of a PUBACK with its reason code; MqttLoad skips what follows
    PACKET_SIZE_MAX = 2048  # bytes of a response with its header


cdef struct Answer:
    # The first bytes of an answer, and the number of bytes that are still to be skipped.
    uint8_t data[ANSWER_SIZE]
    int size
    int skipped


cdef class MqttLoad(StreamLoad):
    # wiring
    cdef Py_ssize_t identifier_offset  # of the packet identifier in a message; 0 with QoS 0
    cdef bint reason_codes             # a PUBACK may have one

    # state
    cdef Answer* answers

    # counters of a run
    cdef int64_t refused

    cdef Failure answered(self, Connection* connection, const uint8_t* packet) noexcept nogil


cdef struct Partial:
    # The first bytes of a response.
    uint8_t data[PACKET_SIZE_MAX]
    Py_ssize_t size


cdef class MqttRequestLoad(StreamLoad):
    # wiring
    cdef Py_ssize_t request_id_offset  # in a message
    cdef Py_ssize_t counter_offset     # of a second request ID, in the payload; 0 without

    # state
    cdef Partial* partials

    # counters of a run
    cdef int64_t refused

    cdef Py_ssize_t cut(self, Connection* connection, const uint8_t* data, Py_ssize_t size, Failure* failure) \
        noexcept nogil
    cdef Failure answered(self, Connection* connection, const uint8_t* topic, Py_ssize_t size) noexcept nogil
