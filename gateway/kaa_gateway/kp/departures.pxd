from libc.stdint cimport uint32_t, uint64_t

from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.nats cimport ServerMessage


cdef class Departure:
    # identity
    cdef uint64_t key            # of the session
    cdef list endpoint_ids       # for which it spoke
    # state
    cdef double pushes_until     # loop time
    cdef double answers_until    # loop time

    cdef bint forward(
        self, const ServerMessage* message, bint correlated, Service service, uint32_t sequence
    ) except -1


cdef class Departures:
    # state
    cdef Py_ssize_t count        # of departures; 0 nearly always
    cdef dict by_key             # key of a session -> Departure, the oldest first
    cdef dict by_endpoint        # endpoint ID -> dict of Departure -> None

    cdef int add(self, Departure departure, double now) except -1
    cdef int remove(self, Departure departure) except -1
    cdef bint forward_answer(
        self, uint64_t key, const ServerMessage* message, Service service, uint32_t sequence
    ) except -1
    cdef bint forward_push(self, Slice endpoint_id, const ServerMessage* message, double now) except -1
