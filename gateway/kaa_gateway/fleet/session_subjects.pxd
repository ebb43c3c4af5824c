from libc.stdint cimport uint32_t

from kaa_gateway.fleet.outbox cimport Outbox

cdef enum:
    FIRST_SID = 1_000_000      # the link's own subscriptions have lower IDs


cdef class SessionSubjects:
    # wiring
    cdef Outbox outbox
    cdef str prefix            # of the subjects, up to the name of the session
    # state
    cdef list free_sids
    cdef uint32_t last_sid
    cdef object former         # OrderedDict of name -> Former, the oldest first

    cdef uint32_t join(self, str name) except 0
    cdef int leave(self, uint32_t sid) except -1
    cdef int leave_later(self, str name, uint32_t sid) except -1
    cdef int leave_former(self, double now) except -1
    cdef int leave_oldest(self) except -1
    cdef int join_again(self, dict entries) except -1
