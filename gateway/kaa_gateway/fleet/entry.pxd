from libc.stdint cimport uint32_t, uint64_t


cdef class PendingClaim:
    cdef DirectoryEntry entry
    cdef str token             # last token of the subject that it is answered on
    cdef uint64_t number       # of the CONNECT that it is made for
    cdef bint resumes          # the client wants what is remembered of it
    cdef double started_at     # by clock.monotonic
    cdef double sent_at        # by Claims.waited
    cdef double asked_at       # by Claims.waited: when it was made again, or else sent
    cdef double deadline       # by Claims.waited
    # state
    cdef bint asks_all         # not only where the session went from here
    cdef int direct_asks       # to where the session went from here, without an answer of NATS
    cdef bint is_repeated      # with the next check
    cdef str result            # of the question to other workers, while the stream is asked; else None
    cdef list parts            # of the state, as far as they have come; None before the first
    cdef int part_count        # of the state
    cdef Py_ssize_t size       # bytes of the parts
    cdef uint64_t state_number  # of the CONNECT that the state is from


cdef class DirectoryEntry:
    # identity
    cdef str name              # of the session, in its subject
    # state
    cdef uint64_t number       # of the last CONNECT of its client on this worker: the highest of all workers counts
    cdef uint32_t sid          # of its subscription; 0: it is not in the directory
    cdef PendingClaim claim    # while other workers are asked, else None
    cdef str yielded_to        # where the worker with a newer CONNECT waits for the state, else None
    cdef bint yields_state     # the newer CONNECT wants the state
    cdef bint yields_nothing   # there was none here, nor at that worker, when it yielded: a third one may have it

    cdef bint is_wanted(self) noexcept
    cdef bint holds(self) noexcept
    cdef int lose(self) except -1
    cdef int hand_over(self, bytes state, uint64_t number) except -1
    cdef int resolved(self, bytes state, uint64_t number) except -1
    cdef int supersede(self) except -1
    cdef bint receive_forwarded(self, message) except -1
    cdef int notice(self) except -1
    cdef int left(self) except -1
