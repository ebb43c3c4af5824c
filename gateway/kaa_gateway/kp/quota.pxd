from libc.stdint cimport uint64_t


cdef class Refusal:
    # An error with which the gateway itself refuses a message.
    cdef readonly int status
    cdef readonly str reason    # code that counts it: docs/reasons.md
    cdef readonly str phrase    # for the device


cdef class Scope:
    # What a quota is of, and the refusals of messages that are over it.
    cdef readonly str name
    cdef Refusal message_rate
    cdef Refusal byte_rate


cdef class Rates:
    # What this worker lets through a second; 0 is any. The endpoints of an application version share one.
    cdef readonly double messages
    cdef readonly double bytes


cdef class Quota:
    # wiring
    cdef readonly Scope scope
    cdef Rates rates
    cdef Quota wider             # what the same messages count for as well, or None
    # state: token buckets, each with what a second brings at most
    cdef double messages
    cdef double bytes            # below zero: a message had more bytes than there were
    cdef double at               # when they were filled, by clock.monotonic
    # counters
    cdef readonly uint64_t messages_asked   # passed or refused here
    cdef readonly uint64_t bytes_asked
    cdef readonly uint64_t messages_passed
    cdef readonly uint64_t bytes_passed

    cdef Refusal excess(self, Py_ssize_t size, double now)
    cdef int take(self, Py_ssize_t size) noexcept
    cdef double wait(self) noexcept


cdef Scope ENDPOINT
cdef Scope APP_VERSION
cdef Scope TENANT

cdef Refusal charge(Quota quota, Py_ssize_t size, double now, double* wait)
