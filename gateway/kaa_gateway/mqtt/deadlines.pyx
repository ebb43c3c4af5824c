"""Objects by the time at which something is due, to the second: adding, removing and taking one cost no search."""

from libc.math cimport ceil


cdef class Deadlines:
    """Objects with a deadline each, in loop time. An object is removed with the deadline that it was added with."""

    def __init__(self):
        self.by_second = {}

    cdef int add(self, object item, double deadline, double now) except -1:
        """Add an object, at loop time `now`. It is due at the first whole second after its deadline."""
        cdef long long second
        if self.count == 0:
            self.next_second = max(self.next_second, <long long>now)
        second = max(<long long>ceil(deadline), self.next_second)
        self.by_second.setdefault(second, {})[item] = None
        self.count += 1
        return 0

    cdef int remove(self, object item, double deadline) except -1:
        """Remove an object, if it is there."""
        cdef long long second = max(<long long>ceil(deadline), self.next_second)
        items = self.by_second.get(second)
        if items is not None and item in items:
            del items[item]
            self.count -= 1
            if not items:
                del self.by_second[second]
        return 0

    cdef object take_due(self, double now):
        """Remove an object that is due at `now`, and return it; or None."""
        while self.count and self.next_second <= <long long>now:
            items = self.by_second.get(self.next_second)
            if items:
                item = next(iter(items))
                del items[item]
                self.count -= 1
                if not items:
                    del self.by_second[self.next_second]
                return item
            self.next_second += 1
        return None
