from libc.stdint cimport int64_t, uint8_t

from bench.datagram_load cimport DatagramLoad
from bench.loop cimport Connection, Failure
from gateway.wire.coap cimport MessageView

cdef enum:
    CODES = 256


cdef class CoapLoad(DatagramLoad):
    # counters of a run
    cdef int64_t refused[CODES]  # responses by code
    cdef int64_t reset

    cdef Failure answered(self, Connection* connection, int64_t number, const MessageView* view) noexcept nogil
