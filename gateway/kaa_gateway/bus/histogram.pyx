"""How long things took, counted in buckets: for what happens per block or per request, not per message."""

cdef double[BUCKET_COUNT - 1] BOUNDS = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
]


cdef class Histogram:
    """Durations since the worker's start, by the bounds of `bounds()`."""

    cdef void observe(self, double seconds) noexcept:
        """Count one duration. Hot path, though not per message."""
        cdef int i = 0
        while i < BUCKET_COUNT - 1 and seconds > BOUNDS[i]:
            i += 1
        self.counts[i] += 1
        self.sum += seconds

    def snapshot(self):
        """(counts of the buckets, each without those before it; sum of all durations in seconds)."""
        return list(self.counts), self.sum


def bounds():
    """The upper bounds of all buckets but the last, in seconds."""
    return list(BOUNDS)
