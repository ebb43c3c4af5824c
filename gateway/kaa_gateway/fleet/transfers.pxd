from libc.stdint cimport uint64_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.fleet.entry cimport PendingClaim
from kaa_gateway.fleet.outbox cimport Outbox


cdef enum Progress:
    OUTDATED                   # a newer state comes already
    INCOMPLETE                 # more parts are to come
    COMPLETE
    MALFORMED


cdef class Transfers:
    # wiring
    cdef object loop
    cdef Outbox outbox
    cdef Counters counters
    # state
    cdef object moved          # OrderedDict of name -> Moved: where sessions have gone lately
    cdef readonly double given_at   # loop time at which a session was given away last
    # counters
    cdef readonly dict sessions    # direction -> count
    cdef readonly dict messages    # direction -> count

    cdef int give(self, str name, str inbox, bytes state, uint64_t number, bint had) except -1
    cdef int send(self, str inbox, bytes state, uint64_t number) except -1
    cdef Progress receive(self, PendingClaim claim, part) except *
    cdef str destination(self, str name)
    cdef int answer(self, message) except -1
    cdef int pass_on(self, str inbox, message) except -1
    cdef int came_back(self, str name) except -1
    cdef bint forward(self, message) except -1
    cdef int forget_old(self, double now) except -1
