from libc.stdint cimport int64_t, uint8_t

from kaa_bench.load.datagram cimport DatagramLoad
from kaa_bench.load.loop cimport Connection, Failure
from kaa_gateway.wire.coap cimport MessageView

cdef enum:
    CODES = 256


cdef class CoapLoad(DatagramLoad):
    # counters of a run
    cdef int64_t refused[CODES]  # responses by code
    cdef int64_t reset

    cdef Failure answered(self, Connection* connection, int64_t number, const MessageView* view) noexcept nogil
