from libc.stdint cimport int64_t, uint32_t, uint64_t

from kaa_gateway.bus.link cimport Link
from kaa_gateway.bus.listener cimport Receiver
from kaa_gateway.counters cimport Counters, Histogram
from kaa_gateway.wire.buffer cimport Buffer
from kaa_gateway.wire.nats cimport ServerMessage


cdef class PendingClaim:
    cdef DirectoryEntry entry
    cdef str token             # last token of the subject that it is answered on
    cdef bint resumes          # the client wants what is remembered of it
    cdef double started_at     # by clock.monotonic
    cdef double sent_at        # by SessionDirectory.waited
    cdef double deadline       # by SessionDirectory.waited
    # state
    cdef list parts            # of the state, as far as they have come; None before the first
    cdef int part_count        # of the state
    cdef Py_ssize_t size       # bytes of the parts
    cdef uint64_t number       # of the CONNECT that the state is from


cdef class DirectoryEntry:
    # identity
    cdef str name              # of the session, in its subject
    # state
    cdef uint64_t number       # of the last CONNECT of its client on this worker: the highest of all workers counts
    cdef uint32_t sid          # of its subscription; 0: it is not in the directory
    cdef PendingClaim claim    # while other workers are asked, else None
    cdef str yielded_to        # where the worker with a newer CONNECT waits for the state, else None
    cdef bint yields_state     # the newer CONNECT wants the state

    cdef bint is_wanted(self) noexcept
    cdef bint holds(self) noexcept
    cdef int lose(self) except -1
    cdef int hand_over(self, bytes state, uint64_t number) except -1
    cdef int resolved(self, bytes state, uint64_t number) except -1
    cdef int supersede(self) except -1
    cdef bint receive_forwarded(self, message) except -1
    cdef int notice(self) except -1
    cdef int left(self) except -1


cdef class SessionDirectory(Receiver):
    # wiring
    cdef Link link
    cdef object loop
    cdef object slices
    cdef Counters counters
    cdef str prefix            # of the subjects of sessions
    cdef str inbox             # prefix of the subjects of answers to this worker
    cdef double timeout        # seconds that a claim waits
    # state
    cdef dict entries          # name -> DirectoryEntry
    cdef object claims         # OrderedDict of token -> PendingClaim, the oldest first
    cdef object moved          # OrderedDict of name -> Moved: where sessions have gone lately
    cdef list new_entries      # (DirectoryEntry, number) since the last check
    cdef list free_sids
    cdef uint32_t last_sid
    cdef uint64_t tag          # of this worker, in numbers
    cdef uint64_t last_number
    cdef uint64_t last_token
    cdef int64_t ahead         # us by which the clock of another worker was ahead of ours
    cdef Buffer out            # lines and publications of this tick
    cdef bint flush_scheduled
    cdef readonly bint alone   # no other worker of the instance is there
    cdef double checked_at     # loop time of the last look at the time
    cdef double waited         # seconds in which answers could be read
    cdef double answered_at    # by `waited`: when a claim was answered last
    cdef int silent_claims     # claims in a row that nobody and nothing answered
    cdef double silent_until   # loop time until which claims do not wait
    cdef double next_hello     # loop time
    cdef dict peers            # inbox of another worker -> loop time of its last greeting
    cdef double given_at       # loop time at which a session was given away last
    cdef bint stopping
    cdef public object on_offer   # called with an Offer of a worker that stops, or None
    # counters
    cdef readonly dict claim_results   # result -> count
    cdef readonly dict sessions_moved  # direction -> count
    cdef readonly dict messages_forwarded  # direction -> count
    cdef readonly Histogram claim_time

    cdef uint64_t next_number(self) noexcept
    cdef int observe(self, uint64_t number) except -1
    cdef bint begin(self, DirectoryEntry entry, bint resumes) except -1
    cdef int claim(self, DirectoryEntry entry, bint resumes) except -1
    cdef int adopt(self, DirectoryEntry entry, uint64_t number) except -1
    cdef int announce(self, DirectoryEntry entry) except -1
    cdef int enter(self, DirectoryEntry entry) except -1
    cdef int notify(self, str name, uint64_t number) except -1
    cdef int leave(self, DirectoryEntry entry) except -1
    cdef int give(self, DirectoryEntry entry, bytes state, uint64_t number) except -1
    cdef int join(self, DirectoryEntry entry) except -1
    cdef int subscribe(self, DirectoryEntry entry) except -1
    cdef int send_claim(self, PendingClaim claim) except -1
    cdef bint forward(self, message) except -1
    cdef int send_state(self, str inbox, bytes state, uint64_t number) except -1
    cdef int resolve(self, PendingClaim claim, str result, bytes state, uint64_t number) except -1
    cdef int receive_claim(self, message) except -1
    cdef int receive_news(self, message) except -1
    cdef int receive_state(self, str token, message) except -1
    cdef int forget_moved(self, double now) except -1
    cdef int set_alone(self, bint alone) except -1
    cdef int count_result(self, str result) except -1
    cdef int publish(self, str subject, str reply, message) except -1
    cdef int schedule_flush(self) except -1
