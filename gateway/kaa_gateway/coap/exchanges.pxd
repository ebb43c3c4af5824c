from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from kaa_gateway.coap.options cimport ETAGS_MAX, Request, Response
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport Block, MessageView, Type

cdef enum:
    NOWHERE = -1              # no place in the deduplication table
    SHORT_RESPONSE_MAX = 24   # bytes of a datagram that need no allocation of their own
    KEPT_TOKEN_MAX = 64       # bytes of a token that is taken; a request with a longer one is refused (RFC 8974)
    SHORT_TOKEN_MAX = 8       # bytes of a token that is kept for duplicates; of a longer one it is the hash


cdef enum Stage:
    RECEIVED        # not forwarded, nothing sent
    FORWARDED       # to the extension; nothing sent
    ACKNOWLEDGED    # forwarded, and an empty acknowledgement sent: the response will be a separate one


cdef class Exchange:
    # A request of a peer, from its arrival until its response.
    # wiring
    cdef object peer                 # CoapPeer
    cdef Exchange previous           # in the list that it is in
    cdef Exchange next
    cdef ExchangeList list
    cdef Exchange chained            # the next of its bucket in its peer's table
    # state
    cdef Type type
    cdef Stage stage
    cdef bint answered               # the extension has answered
    cdef uint8_t method
    cdef uint8_t token_size
    cdef uint8_t[KEPT_TOKEN_MAX] token_bytes
    cdef uint16_t message_id
    cdef uint32_t sequence           # correlates the extension's answer
    cdef double lifetime_end         # loop time until which a duplicate may come
    cdef double piggyback_deadline   # loop time
    # what the request asked for
    cdef int accept
    cdef int observe
    cdef int no_response
    cdef bint unanswered
    cdef int wait                    # seconds that it waits for a push, or NO_WAIT
    cdef int batch                   # pushes that it takes in one response, or NO_BATCH
    cdef bint has_block1
    cdef Block block1
    cdef bint has_block2
    cdef int szx
    cdef int etag_count
    cdef uint32_t[ETAGS_MAX] etags   # those that its client has, which may be ours
    cdef object waiting              # the Waiting of a request that waits for a push, or None
    cdef Exchange next_waiting       # of the same peer
    cdef int64_t waits_until         # second of the loop's time at which its wait is over; 0 before it waits
    cdef object upload               # the Body that it has completed, or None
    cdef Buffer transfer_key         # method, Request-Tag and path: identifies a blockwise transfer

    cdef int begin(self, object peer, const MessageView* view, uint32_t sequence, double now) except -1
    cdef int set_transfer_key(self, Slice request_tag, Slice path) except -1
    cdef void set_options(self, const Request* request) noexcept
    cdef void validate(self, Response* response) noexcept
    cdef Slice token(self) noexcept
    cdef bint has_token(self, Slice token) noexcept


cdef class ExchangeList:
    # state
    cdef Exchange first
    cdef Exchange last
    cdef readonly Py_ssize_t count

    cdef int append(self, Exchange exchange) except -1
    cdef int remove(self, Exchange exchange) except -1


cdef class ExchangeTable:
    # state
    cdef list buckets                # a power of two of them: the first Exchange of each, or None
    cdef Py_ssize_t count

    cdef Exchange find(self, uint16_t message_id)
    cdef Exchange any_one(self)
    cdef int add(self, Exchange exchange) except -1
    cdef int remove(self, Exchange exchange) except -1
    cdef int grow(self) except -1


cdef struct CompletedOfPeer:
    # The completed requests of one peer, in the order of their completion.
    uint64_t salt           # of this peer; nobody outside can know it
    int32_t first           # places; NOWHERE if there are none
    int32_t last
    Py_ssize_t count


cdef union DatagramBytes:
    uint8_t[SHORT_RESPONSE_MAX] inline_bytes
    uint8_t* allocated      # owned


cdef struct CompletedRequest:
    # A request whose exchange is over. One cache line: of a hundred thousand, few are ever looked at.
    CompletedOfPeer* peer   # borrowed: a peer removes all of its own before it goes
    double lifetime_end     # loop time until which a duplicate may come
    int32_t earlier         # of all peers, in the order of their completion
    int32_t later
    int32_t later_of_peer
    int32_t chained         # the next of its bucket, or the next free place
    uint16_t message_id
    uint8_t type
    uint8_t token_size
    uint8_t[SHORT_TOKEN_MAX] token      # or its hash
    int32_t response_size   # 0: nothing was sent, or an empty acknowledgement
    DatagramBytes response


cdef class DeduplicationTable:
    # state
    cdef CompletedRequest* places
    cdef int32_t place_count     # allocated
    cdef int32_t* buckets        # message ID and peer -> place; twice as many as places
    cdef int32_t first           # the earliest completed
    cdef int32_t last
    cdef int32_t first_free
    cdef Py_ssize_t capacity
    cdef readonly Py_ssize_t count

    cdef int add(
        self, CompletedOfPeer* peer, Type type, uint16_t message_id, Slice token, double lifetime_end, Slice response
    ) except -1
    cdef const CompletedRequest* find(
        self, CompletedOfPeer* peer, uint16_t message_id, Slice token, double now
    ) noexcept
    cdef void remove_oldest_of(self, CompletedOfPeer* peer) noexcept
    cdef void remove_all_of(self, CompletedOfPeer* peer) noexcept
    cdef void expire(self, double now) noexcept

    cdef int32_t* bucket_of(self, const CompletedOfPeer* peer, uint16_t message_id) noexcept
    cdef void unlink(self, int32_t place) noexcept
    cdef void remove(self, int32_t place) noexcept
    cdef int grow(self) except -1


cdef inline Slice response_of(const CompletedRequest* completed) noexcept:
    # The datagram to send again; borrowed until the table is next added to.
    if completed.response_size > SHORT_RESPONSE_MAX:
        return Slice(completed.response.allocated, completed.response_size)
    return Slice(&completed.response.inline_bytes[0], completed.response_size)
