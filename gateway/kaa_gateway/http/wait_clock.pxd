from libc.stdint cimport uint32_t


# What a connection waits for.
cdef enum Wait:
    FIRST_REQUEST
    NEXT_REQUEST
    REST_OF_REQUEST
    ANSWER
    END_OF_CLIENT


# For how long it waits: `number` is that of its next request, to tell one wait from the next of its kind.
cdef struct WaitClock:
    Wait wait
    uint32_t number
    double start                 # loop time at which this wait was first seen


cdef inline double waited(WaitClock* clock, Wait wait, uint32_t number, double now, double unread) noexcept nogil:
    """Return the seconds of a wait. While the gateway did not read, for `unread` seconds, the client was not slow."""
    if wait != clock.wait or number != clock.number:
        clock.wait = wait
        clock.number = number
        clock.start = now
    clock.start += unread
    return now - clock.start
