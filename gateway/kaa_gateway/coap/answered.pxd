from libc.stdint cimport int32_t, uint8_t, uint16_t, uint64_t

from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.coap cimport Type

cdef enum:
    NOWHERE = -1            # no place
    SHORT_ANSWER_MAX = 24   # bytes of an answer that need no allocation of their own


cdef struct AnsweredOfPeer:
    # The answered requests of one peer, in the order in which they were answered.
    uint64_t salt           # of this peer; nobody outside can know it
    int32_t first           # places; NOWHERE if there are none
    int32_t last
    Py_ssize_t count


cdef union AnswerBytes:
    uint8_t[SHORT_ANSWER_MAX] short_one
    uint8_t* long_one       # owned


cdef struct Answered:
    # A request that was answered. One cache line: a hundred thousand are walked through in order, and seldom looked at.
    AnsweredOfPeer* peer    # borrowed: the peer forgets all of its own before it goes
    double deadline         # until which its message ID names it
    int32_t earlier         # of all peers, in the order in which they were answered
    int32_t later
    int32_t later_of_peer
    int32_t chained         # the next of its bucket, or the next free place
    uint16_t message_id
    Type type
    int32_t answer_size     # 0: there was none, or an empty acknowledgement
    AnswerBytes answer      # the datagram


cdef class AnsweredRequests:
    # state
    cdef Answered* places
    cdef int32_t place_count     # allocated
    cdef int32_t* buckets        # message ID and peer -> place; twice as many as places
    cdef int32_t first           # the longest answered
    cdef int32_t last
    cdef int32_t first_free
    cdef Py_ssize_t capacity
    cdef readonly Py_ssize_t count

    cdef int add(
        self, AnsweredOfPeer* peer, Type type, uint16_t message_id, double deadline, Slice answer
    ) except -1
    cdef const Answered* find(self, AnsweredOfPeer* peer, uint16_t message_id, double now) noexcept
    cdef void forget_oldest_of(self, AnsweredOfPeer* peer) noexcept
    cdef void forget_all_of(self, AnsweredOfPeer* peer) noexcept
    cdef void expire(self, double now) noexcept

    cdef int32_t* bucket_of(self, const AnsweredOfPeer* peer, uint16_t message_id) noexcept
    cdef void unlink(self, int32_t place) noexcept
    cdef void forget(self, int32_t place) noexcept
    cdef int grow(self) except -1


cdef inline Slice answer_of(const Answered* answered) noexcept:
    # The datagram to repeat; borrowed, until the table is next added to.
    if answered.answer_size > SHORT_ANSWER_MAX:
        return Slice(answered.answer.long_one, answered.answer_size)
    return Slice(&answered.answer.short_one[0], answered.answer_size)
