"""A bounded cache of answers, each of which is valid until a time of its own."""

from collections import OrderedDict

from libc.stdint cimport uint64_t

from kaa_gateway.clock cimport monotonic


cdef class Entry:
    """A value in a cache."""

    cdef object value
    cdef double valid_until    # by clock.monotonic
    cdef uint64_t generation   # of the cache, in which the value is valid


cdef class Cache:
    """At most `capacity` values; at the bound, the least recently used one is evicted.

    `forgotten` is called with key and value of each entry that is removed, for any reason.

    No method takes longer the more values there are: those that `clear` has made invalid are removed when they are
    looked for, or evicted.
    """

    cdef Py_ssize_t capacity
    cdef object forgotten
    cdef object entries        # OrderedDict of key -> Entry, the least recently used first
    cdef uint64_t generation
    # counters
    cdef readonly uint64_t hits
    cdef readonly uint64_t misses
    cdef readonly uint64_t evicted

    def __init__(self, Py_ssize_t capacity, forgotten=None):
        self.capacity = capacity
        self.forgotten = forgotten
        self.entries = OrderedDict()

    def __len__(self):
        return len(self.entries)

    def get(self, key):
        """Return the value of a key if it is there and still valid, else None."""
        cdef Entry entry = self.entries.get(key)
        if entry is not None and (entry.generation != self.generation or entry.valid_until <= monotonic()):
            self.forget(key)
            entry = None
        if entry is None:
            self.misses += 1
            return None
        self.entries.move_to_end(key)
        self.hits += 1
        return entry.value

    def put(self, key, value, double valid_until):
        """Store a value in place of an older one."""
        cdef Entry entry = Entry()
        self.forget(key)
        if len(self.entries) >= self.capacity:
            self.evicted += 1
            self.forget(next(iter(self.entries)))
        entry.value = value
        entry.valid_until = valid_until
        entry.generation = self.generation
        self.entries[key] = entry

    def forget(self, key):
        """Remove a key, if it is there."""
        cdef Entry entry = self.entries.pop(key, None)
        if entry is not None and self.forgotten is not None:
            self.forgotten(key, entry.value)

    def clear(self):
        """Let no value that is there be valid any more."""
        self.generation += 1
