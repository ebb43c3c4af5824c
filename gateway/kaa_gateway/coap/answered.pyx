"""What a CoAP server must remember of the requests that it has answered, for their duplicates.

There may be a hundred thousand, each added once, hardly ever looked at, and forgotten in the order in which they came.
So none is an object: a place in a table that grows to the number kept and is reused in order, which is what a
processor reads ahead. Message IDs mostly count up, so those of a peer have neighbouring buckets.

Source: RFC 7252 section 4.5.
"""

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

cdef enum:
    PLACES_AT_FIRST = 64
    CAPACITY_MAX = 1 << 29


cdef class AnsweredRequests:
    """At most `capacity` requests of all peers: for one more, the longest answered is forgotten."""

    def __init__(self, Py_ssize_t capacity):
        self.first = self.last = self.first_free = NOWHERE
        self.capacity = min(max(capacity, 1), <Py_ssize_t>CAPACITY_MAX)

    def __dealloc__(self):
        cdef int32_t place = self.first
        if self.places != NULL:
            while place != NOWHERE:
                if self.places[place].answer_size > SHORT_ANSWER_MAX:
                    free(self.places[place].answer.long_one)
                place = self.places[place].later
        free(self.places)
        free(self.buckets)

    cdef int add(
        self, AnsweredOfPeer* peer, Type type, uint16_t message_id, double deadline, Slice answer
    ) except -1:
        """Remember a request whose message ID names no other of this peer. Hot path; the answer is copied."""
        cdef uint8_t* storage = NULL
        cdef int32_t place
        cdef int32_t* bucket
        cdef Answered* answered
        if self.count >= self.capacity:
            self.forget(self.first)
        if self.first_free == NOWHERE:
            self.grow()
        if answer.size > SHORT_ANSWER_MAX:
            storage = <uint8_t*>malloc(<size_t>answer.size)
            if storage == NULL:
                raise MemoryError
        place = self.first_free
        answered = &self.places[place]
        self.first_free = answered.chained
        answered.peer = peer
        answered.type = type
        answered.message_id = message_id
        answered.deadline = deadline
        answered.answer_size = <int32_t>answer.size
        if storage != NULL:
            answered.answer.long_one = storage
        else:
            storage = answered.answer.short_one
        if answer.size:
            memcpy(storage, answer.data, <size_t>answer.size)
        bucket = self.bucket_of(peer, message_id)
        answered.chained = bucket[0]
        bucket[0] = place
        answered.earlier = self.last
        answered.later = answered.later_of_peer = NOWHERE
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

    cdef const Answered* find(self, AnsweredOfPeer* peer, uint16_t message_id, double now) noexcept:
        """The request that a message ID names, until the table is next added to; NULL if there is none. Hot path.

        Once its time is over the ID is free for another.
        """
        cdef int32_t place, following
        if self.count == 0:
            return NULL
        place = self.bucket_of(peer, message_id)[0]
        while place != NOWHERE:
            following = self.places[place].chained
            if self.places[place].message_id == message_id and self.places[place].peer == peer:
                if self.places[place].deadline > now:
                    return &self.places[place]
                self.unlink(place)
            place = following
        return NULL

    cdef void forget_oldest_of(self, AnsweredOfPeer* peer) noexcept:
        """Make room among those of a peer, if it has any."""
        if peer.count:
            self.forget(peer.first)

    cdef void forget_all_of(self, AnsweredOfPeer* peer) noexcept:
        """The peer is forgotten."""
        while peer.count:
            self.forget(peer.first)

    cdef void expire(self, double now) noexcept:
        """Forget those whose message IDs name them no more."""
        while self.first != NOWHERE and self.places[self.first].deadline <= now:
            self.forget(self.first)

    cdef int32_t* bucket_of(self, const AnsweredOfPeer* peer, uint16_t message_id) noexcept:
        return &self.buckets[(peer.salt + message_id) & <uint64_t>(2 * self.place_count - 1)]

    cdef void unlink(self, int32_t place) noexcept:
        """Take one out of its bucket, if it still is there, so that it is not found any more."""
        cdef Answered* answered = &self.places[place]
        cdef int32_t* link = self.bucket_of(answered.peer, answered.message_id)
        while link[0] != NOWHERE:
            if link[0] == place:
                link[0] = answered.chained
                return
            link = &self.places[link[0]].chained

    cdef void forget(self, int32_t place) noexcept:
        """Give up the place of one that is the first of its peer. Hot path."""
        cdef Answered* answered = &self.places[place]
        cdef AnsweredOfPeer* peer = answered.peer
        self.unlink(place)
        if answered.answer_size > SHORT_ANSWER_MAX:
            free(answered.answer.long_one)
        if answered.earlier == NOWHERE:
            self.first = answered.later
        else:
            self.places[answered.earlier].later = answered.later
        if answered.later == NOWHERE:
            self.last = answered.earlier
        else:
            self.places[answered.later].earlier = answered.earlier
        peer.first = answered.later_of_peer
        peer.count -= 1
        answered.chained = self.first_free
        self.first_free = place
        self.count -= 1

    cdef int grow(self) except -1:
        """Twice as many places, all of which are in use, and buckets."""
        cdef int32_t count = max(2 * self.place_count, <int32_t>PLACES_AT_FIRST), place, former = self.place_count
        cdef int32_t* bucket
        cdef Answered* places = <Answered*>realloc(self.places, <size_t>count * sizeof(Answered))
        cdef int32_t* buckets
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
