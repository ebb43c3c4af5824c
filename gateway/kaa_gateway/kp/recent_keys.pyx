"""A set that forgets its oldest keys: it has the last `GENERATION` at least, and twice as many at most.

Two generations of hash tables, half full at most: when the younger is full, the older is forgotten.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef enum:
    GENERATION = 8192
    PLACES = 2 * GENERATION  # of a table; a power of two


cdef inline uint64_t* place_of(uint64_t* table, uint64_t key) noexcept:
    """Return the place of a key in a table, or the empty place, which is 0, where it would go."""
    cdef uint64_t at = key & (PLACES - 1)
    while table[at] and table[at] != key:
        at = (at + 1) & (PLACES - 1)
    return &table[at]


cdef inline uint64_t stored(uint64_t key) noexcept:
    return key if key else 1


cdef class RecentKeys:
    """The set. Keys must be hashes: their lowest bits are the place."""

    def __dealloc__(self):
        free(self.recent)
        free(self.before)

    cdef bint has(self, uint64_t key) noexcept:
        """Return whether a key is in the set. Hot path."""
        key = stored(key)
        return self.recent != NULL and (place_of(self.recent, key)[0] != 0 or place_of(self.before, key)[0] != 0)

    cdef int add(self, uint64_t key) except -1:
        """Add a key that is not in the set. Hot path."""
        if self.recent == NULL:
            self.allocate()
        if self.count == GENERATION:
            self.recent, self.before = self.before, self.recent
            memset(self.recent, 0, PLACES * sizeof(uint64_t))
            self.count = 0
        key = stored(key)
        place_of(self.recent, key)[0] = key
        self.count += 1
        return 0

    cdef int allocate(self) except -1:
        if self.before == NULL:
            self.before = <uint64_t*>calloc(PLACES, sizeof(uint64_t))
        self.recent = <uint64_t*>calloc(PLACES, sizeof(uint64_t))
        if self.before == NULL or self.recent == NULL:
            free(self.recent)
            self.recent = NULL
            raise MemoryError
        return 0
