"""A log-linear histogram of latencies, with three significant digits and the layout of HdrHistogram.

Values are nanoseconds from 0 to VALUE_MAX; values outside count as the nearer limit. The layout is that of Gil Tene's
HdrHistogram (lowest value 1, three digits), so percentiles are equal to those that it gives.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset

cdef extern from *:
    int __builtin_clzll(unsigned long long value) nogil

VALUE_MAX = (<int64_t>SUB_BUCKETS << (BUCKETS - 1)) - 1
"""The largest value, in nanoseconds: 68 s."""

cdef int64_t LIMIT = VALUE_MAX


cdef inline Py_ssize_t index_of(int64_t value) noexcept nogil:
    cdef int bucket = 64 - SUB_BUCKET_BITS - __builtin_clzll(<uint64_t>(value | (SUB_BUCKETS - 1)))
    return ((<Py_ssize_t>bucket + 1) << (SUB_BUCKET_BITS - 1)) + <Py_ssize_t>(value >> bucket) - HALF


cdef inline int64_t highest_at(Py_ssize_t index) noexcept nogil:
    """Return the largest value that is counted at an index."""
    cdef Py_ssize_t bucket = (index >> (SUB_BUCKET_BITS - 1)) - 1
    cdef Py_ssize_t sub_bucket = (index & (HALF - 1)) + HALF
    if bucket < 0:
        return index
    return (<int64_t>(sub_bucket + 1) << bucket) - 1


cdef class Histogram:
    """A histogram. It can be pickled, and merged with others."""

    def __cinit__(self):
        memset(self.counts, 0, sizeof(self.counts))

    def __reduce__(self):
        return restored, self.parts()

    def parts(self):
        """Return what `restored` makes the same histogram of."""
        return self.buckets(), self.highest, self.sum

    cdef void add(self, int64_t value) noexcept nogil:
        """Count a value. Hot path."""
        value = max(<int64_t>0, min(value, LIMIT))
        self.counts[index_of(value)] += 1
        self.total += 1
        self.sum += value
        self.highest = max(self.highest, value)

    def record(self, int64_t value):
        """Count a value."""
        self.add(value)

    def buckets(self):
        """Return the counts above 0, as pairs of index and count."""
        cdef Py_ssize_t index
        return [(index, self.counts[index]) for index in range(SIZE) if self.counts[index]]

    def merge(self, Histogram other not None):
        """Add the counts of another histogram."""
        cdef Py_ssize_t index
        for index in range(SIZE):
            self.counts[index] += other.counts[index]
        self.total += other.total
        self.sum += other.sum
        self.highest = max(self.highest, other.highest)

    def copy(self):
        """Return a copy."""
        cdef Histogram other = Histogram()
        other.merge(self)
        return other

    def since(self, Histogram before not None):
        """Return the counts since `before` was copied from this one. The highest value is exact to three digits."""
        cdef Histogram recent = Histogram()
        cdef Py_ssize_t index
        for index in range(SIZE):
            recent.counts[index] = self.counts[index] - before.counts[index]
            if recent.counts[index]:
                recent.highest = highest_at(index)
        recent.total = self.total - before.total
        recent.sum = self.sum - before.sum
        return recent

    @property
    def mean(self):
        """The mean of the values, 0 if there are none."""
        return self.sum / self.total if self.total else 0.0

    def percentile(self, double percent):
        """Return a percentile of the values to three digits, 0 if there are none."""
        cdef int64_t wanted = max(<int64_t>1, <int64_t>(percent / 100 * self.total + 0.5)), seen = 0
        cdef Py_ssize_t index
        for index in range(SIZE):
            seen += self.counts[index]
            if seen >= wanted:
                return highest_at(index)
        return 0


def restored(buckets, int64_t highest, double total):
    """Return the histogram that has these parts. Raise ValueError for a bucket that it does not have."""
    cdef Histogram histogram = Histogram()
    cdef Py_ssize_t index
    cdef int64_t count
    for index, count in buckets:
        if not 0 <= index < SIZE or count < 0:
            raise ValueError(f"no bucket {index} with {count}")
        histogram.counts[index] = count
        histogram.total += count
    histogram.highest = highest
    histogram.sum = total
    return histogram
