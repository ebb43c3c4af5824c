from libc.stdint cimport uint64_t

from kaa_gateway.counters cimport Histogram, ReasonCounter
from kaa_gateway.fleet.entry cimport DirectoryEntry, PendingClaim


cdef class Claims:
    # state
    cdef double timeout        # seconds that a claim waits
    cdef object pending        # OrderedDict of token -> PendingClaim, the next to be overdue first
    cdef object yielded        # deque of (PendingClaim, by `waited`: when it is given up)
    cdef list to_repeat
    cdef uint64_t last_token
    cdef double checked_at     # loop time of the last look at the time
    cdef double waited         # seconds in which answers could be read
    cdef double answered_at    # by `waited`: when a claim was answered last
    cdef int silent            # claims in a row that nobody and nothing answered
    cdef double silent_until   # loop time until which claims do not wait
    # counters
    cdef dict counted              # result -> ReasonCounter
    cdef readonly Histogram time   # from a claim to its result

    cdef PendingClaim add(self, DirectoryEntry entry, bint resumes)
    cdef PendingClaim get(self, str token)
    cdef PendingClaim first(self)
    cdef int wait_anew(self, PendingClaim claim) except -1
    cdef int forget(self, PendingClaim claim) except -1
    cdef int end(self, PendingClaim claim, str result) except -1
    cdef int count(self, str result) except -1
    cdef int note_time(self, double now) except -1
    cdef PendingClaim next_overdue(self, double now)
    cdef int give_up_later(self, PendingClaim claim) except -1
    cdef PendingClaim next_given_up(self)
    cdef int ask_again(self, PendingClaim claim) except -1
    cdef list take_repeated(self)
    cdef list take_unanswered(self)
