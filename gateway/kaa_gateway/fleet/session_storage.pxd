from libc.stdint cimport int64_t, uint64_t

from kaa_gateway.bus.link cimport Link
from kaa_gateway.bus.listener cimport Receiver
from kaa_gateway.counters cimport Counters
from kaa_gateway.wire.buffer cimport Buffer


cdef class StoredSession:
    # identity
    cdef str name              # of the session, in its subject
    cdef str client            # its client ID, for the log
    # state
    cdef uint64_t number       # of the CONNECT that it is from: the highest one remains in the stream
    cdef uint64_t revision     # sequence of the last message of its subject; 0: there is none, as far as is known
    cdef uint64_t base         # sequence of the Snapshot that an Addition may follow; 0: a Snapshot must be written
    cdef int additions         # since that
    cdef bint changed          # since it was written last
    cdef bint writing          # JetStream has not answered yet
    cdef bint closed           # nothing is written any more, but for its removal
    cdef bint gone             # the session has ended: its removal is written
    cdef bint withdrawn        # its state is too large: its removal is written, until it fits
    cdef list unsent           # data of the Additions that are still to be written behind the last message

    cdef bytes take(self, Py_ssize_t size_max)
    cdef int64_t ends(self) except -1
    cdef int64_t seconds(self) except -1
    cdef int on_stored(self) except -1
    cdef int on_not_stored(self) except -1
    cdef int supersede(self) except -1


cdef class StorageRequest:
    cdef str token             # last token of the subject that it is answered on
    cdef str subject           # of the session
    cdef StoredSession stored  # that is written, or compared with the stream; None when a session is loaded
    cdef bint compares         # asks for the last message, to compare it with `stored`
    cdef object done           # called with (state or None, number) when a session is loaded
    cdef bytes question        # payload of the request to JetStream
    cdef double deadline       # loop time
    # state of loading
    cdef uint64_t last         # sequence of the last message; 0 before it is known
    cdef uint64_t base         # sequence of the Snapshot
    cdef uint64_t next         # lowest sequence that answers the question
    cdef object snapshot       # its message, or None before it has come
    cdef list additions


cdef class SessionStorage(Receiver):
    # wiring
    cdef Link link
    cdef object loop
    cdef Counters counters
    cdef str instance
    cdef str inbox             # prefix of the subjects of answers
    cdef str lookup_subject    # of requests for a message of the stream
    cdef object restore        # makes a state of what the stream has of a session
    cdef public object on_missing  # called when the stream is not there, or None
    # state
    cdef dict changed          # StoredSession -> None: those that wait to be written
    cdef dict removals         # name -> StoredSession: those without a session here whose removal is written
    cdef object pending        # OrderedDict of token -> StorageRequest, the oldest first
    cdef object written_at     # OrderedDict of StoredSession -> loop time of its last Snapshot, the oldest first
    cdef uint64_t last_token
    cdef int writes            # under way
    cdef Buffer out            # requests of this tick
    cdef bint flush_scheduled
    cdef bint send_scheduled
    cdef bint failing          # the last write has failed
    cdef object report         # StorageReport: what the log says of it
    cdef list lost             # sessions that the stream has lost
    cdef readonly uint64_t last_sequence   # highest one of a message that the stream has stored
    # counters
    cdef readonly uint64_t written         # messages that the stream has stored
    cdef readonly dict loads               # result -> count

    cdef int mark(self, StoredSession stored) except -1
    cdef int wait(self, StoredSession stored) except -1
    cdef int forget(self, StoredSession stored) except -1
    cdef int remove(self, StoredSession stored) except -1
    cdef int remove_older(self, str name, uint64_t number) except -1
    cdef int write_lost(self) except -1
    cdef int load(self, str name, done) except -1
    cdef int schedule(self, double pause) except -1
    cdef int write(self, StoredSession stored) except -1
    cdef int withdraw(self, StoredSession stored, Py_ssize_t size) except -1
    cdef int publish_removal(self, StoredSession stored) except -1
    cdef int send(self, StoredSession stored, bytes state) except -1
    cdef int publish(self, StoredSession stored, message, bint replaces) except -1
    cdef int compare(self, StoredSession stored) except -1
    cdef int ask(self, StorageRequest request) except -1
    cdef StorageRequest new_request(self, str name)
    cdef int put(self, StorageRequest request, str subject, bytes header, bytes payload) except -1
    cdef int receive_ack(self, StorageRequest request, bytes answer) except -1
    cdef int end_write(self, StoredSession stored) except -1
    cdef int fail(self, StoredSession stored, str trouble) except -1
    cdef int write_later(self, StoredSession stored, double pause) except -1
    cdef int receive_comparison(self, StorageRequest request, found) except -1
    cdef int receive_loaded(self, StorageRequest request, found) except -1
    cdef int ask_from(self, StorageRequest request, uint64_t sequence) except -1
    cdef int give_up(self, StorageRequest request, str trouble) except -1
    cdef int report_missing(self, found) except -1
    cdef int call_missing(self) except -1
    cdef int end_load(self, StorageRequest request, str result, bytes state, uint64_t number) except -1
