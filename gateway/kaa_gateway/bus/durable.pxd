from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kaa_gateway.bus.link cimport Link
from kaa_gateway.bus.listener cimport Listener, Receiver
from kaa_gateway.tick cimport TickOutput
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.nats cimport ServerMessage, StoredPublication


cdef enum RetryPolicy:
    NO_RETRY             # given up when it may have been lost: at most once
    FAIL_FAST            # given up as soon as it cannot be stored: somebody waits for the answer
    RETRY_UNTIL_STORED


cdef struct Entry:
    # One publication of a lane.
    uint64_t session       # session and token are the listener's own
    int64_t position       # of its first byte among all that the lane ever held
    double written_at      # loop time, seconds; 0 if it was not written yet
    uint32_t token
    uint32_t size          # bytes
    RetryPolicy policy
    bint completed         # stored, or given up


cdef class DurableLane(TickOutput):
    # wiring
    cdef Link link
    cdef Listener listener
    cdef readonly str instance     # extension instance name
    cdef readonly str stream       # its JetStream stream
    cdef StoredPublication form
    cdef bytes good_answer         # how a PubAck of this stream begins
    cdef Py_ssize_t payload_offset  # bytes of a publication before its datum
    cdef Py_ssize_t pending_max    # bytes
    cdef double ack_timeout        # seconds
    # state
    cdef Buffer data               # the publications from the first that is not completed on ...
    cdef Py_ssize_t data_start     # ... which begin here
    cdef Entry* ring
    cdef uint32_t capacity         # of the ring, a power of two
    cdef uint32_t first            # number of the oldest entry that is kept
    cdef uint32_t unwritten        # number of the next to write
    cdef uint32_t next             # number of the next to come
    cdef int64_t end               # position behind the last entry
    cdef readonly bint full        # pending_max is passed, and the backlog not yet down to half of it
    cdef readonly bint stalled     # the stream stores nothing: one publication at a time tries it
    cdef double stalled_at         # loop time, seconds
    cdef double retry_at           # loop time of the next try, seconds
    cdef double pause              # seconds before the try after that
    cdef double stored_at          # loop time of the last PubAck, seconds
    cdef readonly str trouble      # what the stream last said instead of storing, or ""
    cdef dict traces               # number -> what is told when that is stored; None until a message is traced
    # counters
    cdef readonly uint64_t stored
    cdef readonly uint64_t resent
    cdef readonly uint64_t abandoned
    cdef readonly uint64_t refusals

    cdef uint8_t* reserve(self, Py_ssize_t datum_size_max) except NULL
    cdef int commit(
        self, Py_ssize_t datum_size, const uint8_t* message_id, uint64_t session, uint32_t token, RetryPolicy policy
    ) except -1
    cdef int trace_last(self, trace, bytes field) except -1
    cdef int grow_ring(self) except -1
    cdef Py_ssize_t backlog_size(self) noexcept
    cdef int flush(self) except -1
    cdef int write(self, int64_t start, int64_t end) except -1
    cdef int on_answer(self, uint32_t number, Slice answer) except -1
    cdef bint holds(self, uint32_t number) noexcept
    cdef int refused(self, uint32_t number, failure) except -1
    cdef int stall(self, str trouble) except -1
    cdef int complete(self, uint32_t number) except -1
    cdef int give_up(self, uint32_t number, bint permanent) except -1
    cdef int give_up_overdue(self, double now) except -1
    cdef int on_connected(self) except -1
    cdef int drop_too_large(self) except -1
    cdef Py_ssize_t largest_in_flight(self) noexcept


cdef class DurableLanes(Receiver):
    # wiring
    cdef Listener listener
    cdef readonly list lanes       # by number
    cdef bytes prefix              # of the reply subjects: <reply-to>.<tag>

    cdef DurableLane find(self, Slice subject, uint32_t* number)
    cdef int on_connected(self) except -1
    cdef int drop_too_large(self) except -1
    cdef Py_ssize_t largest_in_flight(self) except -1
