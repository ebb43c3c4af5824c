from libc.stdint cimport int64_t, uint8_t

from kaa_bench.load.loop cimport Connection, Failure
from kaa_bench.load.stream cimport StreamLoad

cdef enum:
    ANSWER_SIZE = 4  # bytes of a PUBACK, the longest answer that a load expects


cdef struct Answer:
    # An answer of which only the first bytes have arrived.
    uint8_t data[ANSWER_SIZE]
    int size


cdef class MqttLoad(StreamLoad):
    # wiring
    cdef Py_ssize_t identifier_offset  # of the packet identifier in a message; 0 with QoS 0

    # state
    cdef Answer* answers

    cdef Failure answered(self, Connection* connection, const uint8_t* packet) noexcept nogil
