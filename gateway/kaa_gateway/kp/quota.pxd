from libc.stdint cimport int64_t, uint64_t

from kaa_gateway.kp.refusal cimport Refusal


cdef class Scope:
    # What a quota is of, and the refusals of messages that are over it.
    cdef readonly str name
    cdef Refusal message_rate
    cdef Refusal byte_rate
    cdef Refusal month


cdef class Rates:
    # Messages and bytes a second; 0 is any. The endpoints of an application version share one.
    # settings: over all workers and replicas
    cdef readonly double messages_max
    cdef readonly double bytes_max
    # state: what this worker lets through
    cdef readonly double messages
    cdef readonly double bytes
    cdef readonly double message_share      # the part of the whole that is this worker's
    cdef readonly double byte_share


cdef class Quota:
    # wiring
    cdef readonly Scope scope
    cdef readonly Rates rates
    cdef Quota wider             # what the same messages count for as well, or None
    # settings
    cdef readonly int64_t month_max         # messages a month, over all workers and replicas; 0 is any
    # state: token buckets, each with what a second brings at most
    cdef double messages
    cdef double bytes            # below zero: a message had more bytes than there were
    cdef double at               # when they were filled, by clock.monotonic
    cdef int64_t month_left      # messages that may still pass this month
    cdef double month_end        # by clock.monotonic
    cdef bint month_known        # what other workers have counted is in month_left
    # counters
    cdef readonly uint64_t messages_asked   # passed or refused here
    cdef readonly uint64_t bytes_asked
    cdef readonly uint64_t messages_passed
    cdef readonly uint64_t bytes_passed
    cdef public uint64_t messages_counted   # of those that passed: in the month's count that workers share

    cdef Refusal excess(self, Py_ssize_t size, double now)
    cdef int take(self, Py_ssize_t size) noexcept
    cdef double wait(self) noexcept


cdef Scope ENDPOINT
cdef Scope APP_VERSION
cdef Scope TENANT

cdef Refusal charge(Quota quota, Py_ssize_t size, double now, double* wait)
