from libc.stdint cimport uint32_t

from kaa_gateway.bus.link cimport Link
from kaa_gateway.tick cimport TickOutput
from kaa_gateway.wire.buffer cimport Buffer


cdef class Outbox(TickOutput):
    # wiring
    cdef Link link
    # state
    cdef Buffer lines          # subscriptions and publications of this tick

    cdef int subscribe(self, str subject, uint32_t sid) except -1
    cdef int unsubscribe(self, uint32_t sid) except -1
    cdef int publish(self, str subject, str reply, message) except -1
    cdef int clear(self) except -1
    cdef Py_ssize_t waiting(self) except -1
