from libc.stdint cimport uint32_t

from kaa_gateway.fleet.directory cimport SessionDirectory
from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.kp.departures cimport Departure
from kaa_gateway.wire.nats cimport ServerMessage


cdef class MovedSession(Departure):
    # wiring
    cdef SessionDirectory directory
    # identity
    cdef str name                # in the directory

    cdef bint forward(
        self, const ServerMessage* message, bint correlated, Service service, uint32_t sequence
    ) except -1
