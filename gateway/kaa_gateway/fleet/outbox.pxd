from libc.stdint cimport uint32_t

from kaa_gateway.bus.link cimport Link
from kaa_gateway.counters cimport Counters
from kaa_gateway.tick cimport TickOutput
from kaa_gateway.wire.buffer cimport Buffer


cdef enum:
    WAITING_MAX = 16 * 1024 * 1024  # bytes that NATS has not read, above which nothing is published


cdef class Outbox(TickOutput):
    # wiring
    cdef Link link
    cdef Counters counters
    # state
    cdef Buffer lines          # subscriptions and publications of this tick

    cdef inline bint is_full(self) noexcept:
        # Return whether NATS reads more slowly than this worker has something to tell.
        return self.link.unread + self.lines.size > WAITING_MAX

    cdef int subscribe_again(self, list subscriptions) except -1
    cdef int subscribe(self, str subject, uint32_t sid) except -1
    cdef int unsubscribe(self, uint32_t sid) except -1
    cdef int publish(self, str subject, str reply, message) except -1
    cdef int clear(self) except -1
    cdef Py_ssize_t waiting(self) except -1
