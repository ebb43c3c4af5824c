"""A bounded cache of answers, each of which is valid until a time of its own."""

from kaa_gateway.clock cimport monotonic


cdef class Entry:
    """A value in a cache."""


cdef class Cache:
    """At most `capacity` values; at the bound, the least recently used one is evicted.

    `forgotten` is called with key and value of each entry that is removed, for any reason.

    No method takes longer the more values there are: those that `clear` has made invalid are removed when they are
    looked for, or evicted.
    """

    def __init__(self, Py_ssize_t capacity, forgotten=None):
        self.capacity = capacity
        self.forgotten = forgotten
        self.entries = {}

    def __len__(self):
        return len(self.entries)

    def get(self, key):
        """Return the value of a key if it is there and still valid, else None."""
        value = self.find(key)
        if value is None:
            self.misses += 1
        return value

    cdef object find(self, key):
        """Do what `get` does, without counting a miss."""
        cdef Entry entry = self.entries.get(key)
        if entry is None:
            return None
        if entry.generation != self.generation or entry.valid_until <= monotonic():
            self.forget(key)
            return None
        if entry is not self.newest:
            self.unlink(entry)
            self.link(entry)
        self.hits += 1
        return entry.value

    def put(self, key, value, double valid_until):
        """Store a value in place of an older one."""
        cdef Entry entry = Entry()
        self.forget(key)
        if len(self.entries) >= self.capacity:
            self.evicted += 1
            self.forget(self.oldest.key)
        entry.key = key
        entry.value = value
        entry.valid_until = valid_until
        entry.generation = self.generation
        self.entries[key] = entry
        self.link(entry)

    cdef int link(self, Entry entry) except -1:
        """Add an entry as the most recently used one."""
        entry.older = self.newest
        if self.newest is None:
            self.oldest = entry
        else:
            self.newest.newer = entry
        self.newest = entry
        return 0

    cdef int unlink(self, Entry entry) except -1:
        """Take an entry out of the order of use."""
        cdef Entry older = entry.older, newer = entry.newer
        entry.older = entry.newer = None
        if older is None:
            self.oldest = newer
        else:
            older.newer = newer
        if newer is None:
            self.newest = older
        else:
            newer.older = older
        return 0

    cpdef int forget(self, key) except -1:
        """Remove a key, if it is there."""
        cdef Entry entry = self.entries.pop(key, None)
        if entry is None:
            return 0
        self.unlink(entry)
        if self.forgotten is not None:
            self.forgotten(key, entry.value)
        return 0

    def clear(self):
        """Let no value that is there be valid any more."""
        self.generation += 1
