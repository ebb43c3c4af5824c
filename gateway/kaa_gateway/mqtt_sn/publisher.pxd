from kaa_gateway.kp.session cimport Session
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.wire.buffer cimport Slice


cdef class UnconnectedPublisher(Session):
    # wiring
    cdef Uplink uplink
    cdef object publishers       # that it is in: those of the server
    cdef bytes address           # the key there
    # state
    cdef double last_received    # loop time

    cdef int publish(self, Slice topic, Slice payload) except -1
