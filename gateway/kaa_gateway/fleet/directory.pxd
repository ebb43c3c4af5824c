from libc.stdint cimport uint32_t, uint64_t

from kaa_gateway.bus.link cimport Link
from kaa_gateway.bus.listener cimport Receiver
from kaa_gateway.counters cimport Counters
from kaa_gateway.fleet.assertions cimport Assertions
from kaa_gateway.fleet.claims cimport Claims
from kaa_gateway.fleet.connect_numbers cimport ConnectNumbers
from kaa_gateway.fleet.entry cimport DirectoryEntry, PendingClaim
from kaa_gateway.fleet.other_workers cimport OtherWorkers
from kaa_gateway.fleet.outbox cimport Outbox
from kaa_gateway.fleet.session_storage cimport SessionStorage
from kaa_gateway.fleet.session_subjects cimport SessionSubjects
from kaa_gateway.fleet.transfers cimport Transfers
from kaa_gateway.wire.nats cimport ServerMessage


cdef class SessionDirectory(Receiver):
    # wiring
    cdef Link link
    cdef object loop
    cdef Counters counters
    cdef Outbox outbox
    cdef ConnectNumbers numbers
    cdef readonly OtherWorkers others
    cdef SessionSubjects subjects
    cdef Assertions assertions
    cdef readonly Transfers transfers
    cdef str prefix            # of the subjects of sessions
    cdef str inbox             # prefix of the subjects of answers to this worker
    cdef str greetings         # where this worker hears of others
    cdef SessionStorage storage  # where sessions outlive their workers; None: nowhere
    # state
    cdef readonly Claims claims
    cdef dict entries          # name -> DirectoryEntry
    cdef dict info             # the newest INFO of the link, or None
    cdef object servers        # the NATS servers in it
    cdef public object on_offer   # called with an Offer of a worker that stops, or None

    cdef inline bint is_full(self) noexcept:
        # Return whether too much waits for NATS to tell other workers of a CONNECT.
        return self.outbox.is_full()

    cdef bint begin(self, DirectoryEntry entry, bint resumes) except -1
    cdef int claim(self, DirectoryEntry entry, bint resumes) except -1
    cdef bint may_be_stored(self, DirectoryEntry entry, bint resumes) except -1
    cdef int look_up(self, PendingClaim claim, str result) except -1
    cdef int adopt(self, DirectoryEntry entry, uint64_t number) except -1
    cdef int send_claim(self, PendingClaim claim) except -1
    cdef object message_of(self, PendingClaim claim)
    cdef int announce(self, DirectoryEntry entry) except -1
    cdef int enter(self, DirectoryEntry entry) except -1
    cdef int notify(self, str name, uint64_t number) except -1
    cdef int join(self, DirectoryEntry entry) except -1
    cdef int leave(self, DirectoryEntry entry) except -1
    cdef uint32_t take_out(self, DirectoryEntry entry) except? 0
    cdef int give(self, DirectoryEntry entry, bytes state, uint64_t number) except -1
    cdef bint forward(self, message) except -1
    cdef int receive_hello(self, message) except -1
    cdef int receive_news(self, message) except -1
    cdef int receive_claim(self, message) except -1
    cdef int receive_own_claim(self, str token) except -1
    cdef int receive_state(self, str token, message) except -1
    cdef int look_for_lost_server(self) except -1
    cdef int repeat_claims(self) except -1
    cdef int resolve(self, PendingClaim claim, str result, bytes state, uint64_t number) except -1
    cdef int end_claims(self, double now) except -1
    cdef int publish(self, str subject, str reply, message) except -1


cdef str name_of(str kind, tuple parts)
