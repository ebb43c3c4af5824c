"""The exchanges of a CoAP server: requests that wait for their responses, and completed ones for deduplication.

An open exchange is an object, found by message ID in its peer's table; ExchangeList has those that are not yet
acknowledged, in the order of their deadlines. Of a completed exchange only what a duplicate needs is kept. There may be
a hundred thousand of these, each added once, hardly ever looked at, and removed in order; so they are no objects but
places of one table, which grows to the number kept and is reused in order, as a processor reads ahead.
Message IDs mostly count up, so those of one peer have neighbouring buckets.

Source: RFC 7252 sections 4.5 (deduplication) and 4.8.2 (lifetimes).
"""

cimport cython
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy

from kaa_gateway.coap.options cimport SZX_MAX, WHOLE_SZX
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport CON, STREAM, VALID, read_uint
from kaa_gateway.wire.query cimport NO_BATCH, NO_WAIT

cdef enum:
    BUCKETS_AT_FIRST = 4
    PLACES_AT_FIRST = 64
    CAPACITY_MAX = 1 << 29

# Seconds for which the message ID of a confirmable request stays in use (RFC 7252 section 4.8.2).
cdef double EXCHANGE_LIFETIME = 247.0
# Seconds for which the message ID of a non-confirmable request does.
cdef double NON_LIFETIME = 145.0


# The garbage collector need not look through them: the list and the peer let go of each when it is completed.
@cython.no_gc
cdef class Exchange:
    """A request that waits for its response."""

    def __cinit__(self):
        self.transfer_key = Buffer()

    cdef int begin(self, object peer, const MessageView* view, uint32_t sequence, double now) except -1:
        """Begin with a request that has just come; what the exchange was used for before is overwritten. Hot path."""
        self.peer = peer
        self.type = view.type
        self.stage = RECEIVED
        self.answered = self.unanswered = self.has_block1 = self.has_block2 = False
        self.accept = self.observe = -1
        self.no_response = self.etag_count = 0
        self.wait = NO_WAIT
        self.batch = NO_BATCH
        self.szx = WHOLE_SZX if view.type == STREAM else SZX_MAX
        self.transfer_key.size = 0
        self.method = view.code
        self.message_id = view.message_id
        self.token_size = <uint8_t>view.token.size
        memcpy(self.token_bytes, view.token.data, <size_t>view.token.size)
        self.sequence = sequence
        self.lifetime_end = now + (EXCHANGE_LIFETIME if view.type == CON else NON_LIFETIME)
        return 0

    cdef void set_options(self, const Request* request) noexcept:
        """Take over the options that matter for the response. Hot path."""
        self.accept = request.accept
        self.observe = request.observe
        self.no_response = request.no_response
        self.unanswered = request.query.no_answer
        if request.query.wait > 0:
            self.unanswered = True
            self.wait = request.query.wait
            self.batch = request.query.batch
            self.observe = -1
            self.no_response = 0  # else a push could be lost
        self.has_block2 = request.has_block2
        self.etag_count = request.etag_count
        if request.etag_count:
            memcpy(self.etags, request.etags, sizeof(self.etags))
        if request.has_block2:
            self.szx = min(request.block2.szx, <int>SZX_MAX)

    cdef int set_transfer_key(self, Slice request_tag, Slice path) except -1:
        """Write what the blocks of a transfer share: method, length of Request-Tag, Request-Tag, path. Hot path."""
        cdef uint8_t* at = self.transfer_key.reserve(2)
        at[0] = self.method
        at[1] = <uint8_t>request_tag.size
        self.transfer_key.size = 2
        if request_tag.size:
            self.transfer_key.append(request_tag.data, request_tag.size)
        return self.transfer_key.append(path.data, path.size)

    cdef void validate(self, Response* response) noexcept:
        """Make a 2.05 a 2.03 without a body, if its client has that body by its ETag (RFC 7252 section 5.10.6.2)."""
        cdef int i
        for i in range(self.etag_count):
            if self.etags[i] == read_uint(response.etag):
                response.code = VALID
                response.body = Slice(NULL, 0)
                response.content_format = -1
                return

    cdef Slice token(self) noexcept:
        return Slice(&self.token_bytes[0], self.token_size)

    cdef bint has_token(self, Slice token) noexcept:
        """Return whether a request with the same message ID is a duplicate; one with another token is not. Hot path."""
        return token.size == self.token_size and memcmp(token.data, self.token_bytes, self.token_size) == 0


cdef class ExchangeList:
    """Exchanges in the order in which they were appended; each is in one list at most."""

    cdef int append(self, Exchange exchange) except -1:
        """Append an exchange. Hot path."""
        exchange.list = self
        exchange.previous = self.last
        if self.last is None:
            self.first = exchange
        else:
            self.last.next = exchange
        self.last = exchange
        self.count += 1
        return 0

    cdef int remove(self, Exchange exchange) except -1:
        """Remove an exchange that is in the list. Hot path."""
        if exchange.previous is None:
            self.first = exchange.next
        else:
            exchange.previous.next = exchange.next
        if exchange.next is None:
            self.last = exchange.previous
        else:
            exchange.next.previous = exchange.previous
        exchange.previous = exchange.next = None
        exchange.list = None
        self.count -= 1
        return 0


cdef class ExchangeTable:
    """The exchanges of one peer by message ID. IDs mostly count up, so they need no hashing."""

    def __cinit__(self):
        self.buckets = [None] * BUCKETS_AT_FIRST

    cdef Exchange find(self, uint16_t message_id):
        """Return the exchange of a message ID, or None. Hot path."""
        cdef Exchange exchange = <Exchange>self.buckets[message_id & (len(self.buckets) - 1)]
        while exchange is not None and exchange.message_id != message_id:
            exchange = exchange.chained
        return exchange

    cdef Exchange any_one(self):
        """Return an exchange of the table, or None if it is empty."""
        cdef Exchange exchange
        if self.count:
            for exchange in self.buckets:
                if exchange is not None:
                    return exchange
        return None

    cdef int add(self, Exchange exchange) except -1:
        """Add an exchange whose message ID is not in the table. Hot path."""
        cdef Py_ssize_t bucket
        if self.count >= len(self.buckets):
            self.grow()
        bucket = exchange.message_id & (len(self.buckets) - 1)
        exchange.chained = <Exchange>self.buckets[bucket]
        self.buckets[bucket] = exchange
        self.count += 1
        return 0

    cdef int remove(self, Exchange exchange) except -1:
        """Remove an exchange that is in the table. Hot path."""
        cdef Py_ssize_t bucket = exchange.message_id & (len(self.buckets) - 1)
        cdef Exchange before = <Exchange>self.buckets[bucket]
        if before is exchange:
            self.buckets[bucket] = exchange.chained
        else:
            while before is not None and before.chained is not exchange:
                before = before.chained
            if before is None:
                raise KeyError(exchange.message_id)
            before.chained = exchange.chained
        exchange.chained = None
        self.count -= 1
        return 0

    cdef int grow(self) except -1:
        cdef list former = self.buckets
        cdef Exchange exchange, following
        cdef Py_ssize_t bucket
        self.buckets = [None] * (2 * len(former))
        for exchange in former:
            while exchange is not None:
                following = exchange.chained
                bucket = exchange.message_id & (len(self.buckets) - 1)
                exchange.chained = <Exchange>self.buckets[bucket]
                self.buckets[bucket] = exchange
                exchange = following
        return 0


cdef inline uint64_t hash_of(Slice token) noexcept nogil:
    """Return the FNV-1a hash of a token: two long tokens of one peer with one message ID hardly ever share it."""
    cdef uint64_t result = <uint64_t>0xCBF29CE484222325
    cdef Py_ssize_t i
    for i in range(token.size):
        result = (result ^ token.data[i]) * <uint64_t>0x100000001B3
    return result


cdef class DeduplicationTable:
    """A table of at most `capacity` completed requests of all peers. One more removes the earliest completed one."""

    def __init__(self, Py_ssize_t capacity):
        self.first = self.last = self.first_free = NOWHERE
        self.capacity = min(max(capacity, 1), <Py_ssize_t>CAPACITY_MAX)

    def __dealloc__(self):
        cdef int32_t place = self.first
        if self.places != NULL:
            while place != NOWHERE:
                if self.places[place].response_size > SHORT_RESPONSE_MAX:
                    free(self.places[place].response.allocated)
                place = self.places[place].later
        free(self.places)
        free(self.buckets)

    cdef int add(
        self, CompletedOfPeer* peer, Type type, uint16_t message_id, Slice token, double lifetime_end, Slice response
    ) except -1:
        """Add a request; its token and the datagram `response` are copied. Hot path."""
        cdef uint8_t* storage = NULL
        cdef int32_t place
        cdef uint64_t hash
        cdef int32_t* bucket
        cdef CompletedRequest* completed
        if self.count >= self.capacity:
            self.remove(self.first)
        if self.first_free == NOWHERE:
            self.grow()
        if response.size > SHORT_RESPONSE_MAX:
            storage = <uint8_t*>malloc(<size_t>response.size)
            if storage == NULL:
                raise MemoryError
        place = self.first_free
        completed = &self.places[place]
        self.first_free = completed.chained
        completed.peer = peer
        completed.type = <uint8_t>type
        completed.token_size = <uint8_t>token.size
        if token.size > SHORT_TOKEN_MAX:
            hash = hash_of(token)
            memcpy(completed.token, &hash, SHORT_TOKEN_MAX)
        else:
            memcpy(completed.token, token.data, <size_t>token.size)
        completed.message_id = message_id
        completed.lifetime_end = lifetime_end
        completed.response_size = <int32_t>response.size
        if storage != NULL:
            completed.response.allocated = storage
        else:
            storage = completed.response.inline_bytes
        if response.size:
            memcpy(storage, response.data, <size_t>response.size)
        bucket = self.bucket_of(peer, message_id)
        completed.chained = bucket[0]
        bucket[0] = place
        completed.earlier = self.last
        completed.later = completed.later_of_peer = NOWHERE
        if self.last == NOWHERE:
            self.first = place
        else:
            self.places[self.last].later = place
        self.last = place
        if peer.count == 0:
            peer.first = place
        else:
            self.places[peer.last].later_of_peer = place
        peer.last = place
        peer.count += 1
        self.count += 1
        return 0

    cdef const CompletedRequest* find(
        self, CompletedOfPeer* peer, uint16_t message_id, Slice token, double now
    ) noexcept:
        """Return the request of a message ID and token, or NULL; borrowed until the table is next added to. Hot path.

        After its lifetime a message ID may be used for another request. A device that has restarted uses it earlier;
        its tokens differ.
        """
        cdef int32_t place, following
        cdef Slice short = token
        cdef uint64_t hash
        if self.count == 0:
            return NULL
        if token.size > SHORT_TOKEN_MAX:
            hash = hash_of(token)
            short = Slice(<const uint8_t*>&hash, SHORT_TOKEN_MAX)
        place = self.bucket_of(peer, message_id)[0]
        while place != NOWHERE:
            following = self.places[place].chained
            if self.places[place].message_id == message_id and self.places[place].peer == peer:
                if self.places[place].lifetime_end <= now:
                    self.unlink(place)
                elif self.places[place].token_size == token.size \
                        and memcmp(self.places[place].token, short.data, <size_t>short.size) == 0:
                    return &self.places[place]
            place = following
        return NULL

    cdef void remove_oldest_of(self, CompletedOfPeer* peer) noexcept:
        """Remove the earliest completed request of a peer, if it has any."""
        if peer.count:
            self.remove(peer.first)

    cdef void remove_all_of(self, CompletedOfPeer* peer) noexcept:
        """Remove all requests of a peer."""
        while peer.count:
            self.remove(peer.first)

    cdef void expire(self, double now) noexcept:
        """Remove the requests whose lifetime is over."""
        while self.first != NOWHERE and self.places[self.first].lifetime_end <= now:
            self.remove(self.first)

    cdef int32_t* bucket_of(self, const CompletedOfPeer* peer, uint16_t message_id) noexcept:
        return &self.buckets[(peer.salt + message_id) & <uint64_t>(2 * self.place_count - 1)]

    cdef void unlink(self, int32_t place) noexcept:
        """Take a request out of its bucket, if it is still there: it is no longer found."""
        cdef CompletedRequest* completed = &self.places[place]
        cdef int32_t* link = self.bucket_of(completed.peer, completed.message_id)
        while link[0] != NOWHERE:
            if link[0] == place:
                link[0] = completed.chained
                return
            link = &self.places[link[0]].chained

    cdef void remove(self, int32_t place) noexcept:
        """Free the place of the earliest request of a peer. Hot path."""
        cdef CompletedRequest* completed = &self.places[place]
        cdef CompletedOfPeer* peer = completed.peer
        self.unlink(place)
        if completed.response_size > SHORT_RESPONSE_MAX:
            free(completed.response.allocated)
        if completed.earlier == NOWHERE:
            self.first = completed.later
        else:
            self.places[completed.earlier].later = completed.later
        if completed.later == NOWHERE:
            self.last = completed.earlier
        else:
            self.places[completed.later].earlier = completed.earlier
        peer.first = completed.later_of_peer
        peer.count -= 1
        completed.chained = self.first_free
        self.first_free = place
        self.count -= 1

    cdef int grow(self) except -1:
        """Double the number of places, all of which are in use, and of buckets."""
        cdef int32_t count = max(2 * self.place_count, <int32_t>PLACES_AT_FIRST), place, former = self.place_count
        cdef int32_t* bucket
        cdef CompletedRequest* places
        cdef int32_t* buckets
        places = <CompletedRequest*>realloc(self.places, <size_t>count * sizeof(CompletedRequest))
        if places == NULL:
            raise MemoryError
        self.places = places
        buckets = <int32_t*>realloc(self.buckets, 2 * <size_t>count * sizeof(int32_t))
        if buckets == NULL:
            raise MemoryError
        self.buckets = buckets
        self.place_count = count
        for place in range(2 * count):
            buckets[place] = NOWHERE
        for place in range(former):
            bucket = self.bucket_of(places[place].peer, places[place].message_id)
            places[place].chained = bucket[0]
            bucket[0] = place
        for place in range(count - 1, former - 1, -1):
            places[place].chained = self.first_free
            self.first_free = place
        return 0
