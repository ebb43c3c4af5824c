from libc.stdint cimport int64_t, uint8_t

from kaa_bench.load.datagram cimport DatagramLoad
from kaa_bench.load.loop cimport Connection, Failure
from kaa_gateway.wire.kpudp cimport Frame

cdef enum:
    REASON_MAX = 599  # of a RESET


cdef class KpUdpLoad(DatagramLoad):
    # what is sent
    cdef uint8_t epoch

    # counters of a run
    cdef int64_t resets[REASON_MAX + 1]  # by reason

    cdef void pong(self, Connection* connection, const Frame* frame) noexcept nogil
