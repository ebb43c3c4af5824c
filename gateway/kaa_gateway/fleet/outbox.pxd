from libc.stdint cimport uint32_t

from kaa_gateway.bus.link cimport Link
from kaa_gateway.wire.buffer cimport Buffer


cdef class Outbox:
    # wiring
    cdef Link link
    cdef object loop
    # state
    cdef Buffer lines          # subscriptions and publications of this tick
    cdef bint flush_scheduled

    cdef int subscribe(self, str subject, uint32_t sid) except -1
    cdef int unsubscribe(self, uint32_t sid) except -1
    cdef int publish(self, str subject, str reply, message) except -1
    cdef int clear(self) except -1
    cdef int schedule_flush(self) except -1
    cdef Py_ssize_t waiting(self) except -1
