from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport TOKEN_SIZE_MAX, Block, Type


# What has become of a request. A confirmable one is acknowledged with its answer, or before it if that takes long.
cdef enum Stage:
    ARRIVED         # not forwarded, nothing sent
    PENDING         # forwarded, nothing sent
    ACKNOWLEDGED    # forwarded, an empty acknowledgement sent


cdef class Exchange:
    # A request of a peer, from its arrival until it is answered; then it is one of the AnsweredRequests.
    # wiring
    cdef object peer                 # CoapPeer
    cdef Exchange previous           # in the list that it is in
    cdef Exchange next
    cdef ExchangeList list
    cdef Exchange chained            # the next of its bucket in its peer's table
    # state
    cdef Type type
    cdef Stage stage
    cdef bint has_answer             # its extension has given one
    cdef uint8_t method
    cdef uint8_t token_size
    cdef uint8_t[TOKEN_SIZE_MAX] token_bytes
    cdef uint16_t message_id
    cdef uint32_t sequence           # what its answer comes back with
    cdef double deadline             # of the message ID
    cdef double piggyback_deadline
    # what the request asked for
    cdef int accept
    cdef int observe
    cdef int no_response
    cdef bint unanswered
    cdef bint has_block1
    cdef Block block1
    cdef bint has_block2
    cdef int szx
    cdef Buffer resource             # method, Request-Tag and path: what blocks of its answer are found by

    cdef Slice token(self) noexcept


cdef class ExchangeList:
    # state
    cdef Exchange first
    cdef Exchange last
    cdef readonly Py_ssize_t count

    cdef int append(self, Exchange exchange) except -1
    cdef int remove(self, Exchange exchange) except -1


cdef class ExchangeTable:
    # The exchanges of one peer by message ID.
    # state
    cdef list buckets                # a power of two of them: the first Exchange of each, or None
    cdef Py_ssize_t count

    cdef Exchange find(self, uint16_t message_id)
    cdef Exchange any_one(self)
    cdef int add(self, Exchange exchange) except -1
    cdef int remove(self, Exchange exchange) except -1
    cdef int grow(self) except -1


cdef class Transmission:
    # A confirmable message of ours, until it is acknowledged or given up.
    # wiring
    cdef object peer                 # CoapPeer
    cdef object observer             # the Observer whose notification it is, or None
    # state
    cdef uint16_t message_id
    cdef bytes datagram
    cdef double timeout              # seconds until the next retransmission
    cdef int attempts                # retransmissions so far
    cdef int64_t slot                # of the timer


cdef class RetransmissionTimer:
    # state
    cdef dict slots                  # tenth of a second -> {Transmission: None}
    cdef int64_t now                 # the last slot that is over
    cdef readonly Py_ssize_t count

    cdef int add(self, Transmission transmission, double deadline) except -1
    cdef int remove(self, Transmission transmission) except -1
    cdef list due(self, double now)
