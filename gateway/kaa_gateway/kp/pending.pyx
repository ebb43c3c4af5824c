"""The requests of a protocol that wait for the answers of extensions, each until its deadline.

All requests of a transport wait equally long, so they expire in the order in which they came. A request costs no
object: a place in a table that grows to the number waiting, found by hashing, chained in the order of the deadlines.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport free, realloc

from kaa_gateway.counters cimport Histogram
from kaa_gateway.clock cimport monotonic
from kaa_gateway.kp.correlation cimport REQUEST, SEQUENCE_BITS, SEQUENCE_MASK
from kaa_gateway.wire.buffer cimport Slice

cdef int GATEWAY_TIMEOUT = 504

cdef enum:
    NONE = -1
    PLACES_AT_FIRST = 64
    CAPACITY_MAX = 1 << 30
    EXPIRED_PER_CALL = 500


cdef inline uint64_t entry_key(uint64_t session, uint32_t sequence) noexcept:
    return session << SEQUENCE_BITS | (sequence & SEQUENCE_MASK)  # as much of it as comes back


cdef inline int32_t bucket_of(uint64_t key, int32_t count) noexcept:
    """Return the bucket of a key. Fibonacci hashing: the upper bits of the product depend on the whole key."""
    return <int32_t>(((key * <uint64_t>0x9E3779B97F4A7C15) >> 32) * <uint64_t>count >> 32)


cdef class PendingRequests:
    """A table of at most `capacity` requests, each for at most `timeout` seconds."""

    def __init__(self, Py_ssize_t capacity, double timeout):
        self.first = self.last = self.first_free = NONE
        self.capacity = min(capacity, <Py_ssize_t>CAPACITY_MAX)
        self.timeout = timeout
        self.latency = Histogram()

    def set_capacity(self, Py_ssize_t capacity):
        """Set another bound, for what comes from now on."""
        self.capacity = min(capacity, <Py_ssize_t>CAPACITY_MAX)

    def __dealloc__(self):
        cdef int32_t place = self.first
        if self.places != NULL:
            while place != NONE:
                Py_DECREF(<object>self.places[place].session)
                place = self.places[place].later
        free(self.places)
        free(self.buckets)

    def count(self):
        """Return the number of requests that wait for an answer."""
        return self.waiting

    cdef bint add(self, Session session, uint32_t sequence, double now) except -1:
        """Add a request of a session. Return False if there are too many already. Hot path."""
        cdef int32_t place
        cdef Pending* entry
        cdef int32_t* bucket
        if self.waiting >= self.capacity:
            return False
        self.forget(session.key, sequence)  # a sequence that is used again names the new request
        if self.first_free == NONE:
            self.grow()
        place = self.first_free
        entry = &self.places[place]
        self.first_free = entry.chained
        entry.session = <PyObject*>session
        Py_INCREF(session)
        entry.key = entry_key(session.key, sequence)
        entry.deadline = now + self.timeout
        entry.started = monotonic()
        bucket = &self.buckets[bucket_of(entry.key, self.place_count)]
        entry.chained = bucket[0]
        bucket[0] = place
        entry.earlier = self.last
        entry.later = NONE
        if self.last == NONE:
            self.first = place
        else:
            self.places[self.last].later = place
        self.last = place
        self.waiting += 1
        return True

    cdef int answered(self, uint64_t session, uint32_t sequence) except -1:
        """Remove a request that its extension has answered. Hot path."""
        cdef int32_t* link = self.link_to(entry_key(session, sequence))
        if link != NULL:
            self.latency.observe(monotonic() - self.places[link[0]].started)
            self.remove(link[0], link)
        return 0

    cdef int forget(self, uint64_t session, uint32_t sequence) except -1:
        """Remove a request that has failed, or for which nobody waits any more. Hot path."""
        cdef int32_t* link = self.link_to(entry_key(session, sequence))
        if link != NULL:
            self.remove(link[0], link)
        return 0

    cdef int32_t* link_to(self, uint64_t key) noexcept:
        """Return the pointer to the place of a key, in its bucket or the place before it. NULL if there is none."""
        cdef int32_t* link
        if self.place_count == 0:
            return NULL
        link = &self.buckets[bucket_of(key, self.place_count)]
        while link[0] != NONE:
            if self.places[link[0]].key == key:
                return link
            link = &self.places[link[0]].chained
        return NULL

    cdef int remove(self, int32_t place, int32_t* link) except -1:
        cdef Pending* entry = &self.places[place]
        cdef PyObject* session = entry.session
        link[0] = entry.chained
        if entry.earlier == NONE:
            self.first = entry.later
        else:
            self.places[entry.earlier].later = entry.later
        if entry.later == NONE:
            self.last = entry.earlier
        else:
            self.places[entry.later].earlier = entry.earlier
        entry.chained = self.first_free
        self.first_free = place
        self.waiting -= 1
        Py_DECREF(<object>session)  # last, because it may be what ends the session
        return 0

    cdef int grow(self) except -1:
        """Double the number of places, all of which are in use, and of buckets."""
        cdef int32_t count = max(2 * self.place_count, <int32_t>PLACES_AT_FIRST), place
        cdef int32_t* bucket
        cdef Pending* places = <Pending*>realloc(self.places, <size_t>count * sizeof(Pending))
        cdef int32_t* buckets
        if places == NULL:
            raise MemoryError
        self.places = places
        buckets = <int32_t*>realloc(self.buckets, <size_t>count * sizeof(int32_t))
        if buckets == NULL:
            raise MemoryError
        self.buckets = buckets
        for place in range(count):
            buckets[place] = NONE
        for place in range(self.place_count):
            bucket = &buckets[bucket_of(places[place].key, count)]
            places[place].chained = bucket[0]
            bucket[0] = place
        for place in range(count - 1, self.place_count - 1, -1):
            places[place].chained = self.first_free
            self.first_free = place
        self.place_count = count
        return 0

    def expire(self, double now):
        """Fail what is past its deadline at `now`, the loop's time; call it a few times a second.

        Return whether there may be more: a call fails no more than a slice, so that the event loop goes on.
        """
        cdef Session session
        cdef uint64_t key
        cdef int _
        for _ in range(EXPIRED_PER_CALL):
            if self.first == NONE or self.places[self.first].deadline > now:
                return False
            key = self.places[self.first].key
            session = <Session>self.places[self.first].session
            self.remove(self.first, self.link_to(key))
            self.expired += 1
            session.fail(
                Slice(NULL, 0), REQUEST, True, <uint32_t>(key & SEQUENCE_MASK), GATEWAY_TIMEOUT,
                "The extension did not answer in time",
            )
        return True
