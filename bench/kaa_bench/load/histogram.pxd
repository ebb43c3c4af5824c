from libc.stdint cimport int64_t

cdef enum:
    SUB_BUCKET_BITS = 11                        # three significant digits, as HdrHistogram calls it
    SUB_BUCKETS = 1 << SUB_BUCKET_BITS
    HALF = SUB_BUCKETS // 2
    BUCKETS = 26                                # values up to 68 s in nanoseconds
    SIZE = (BUCKETS + 1) * HALF


cdef class Histogram:
    # counters
    cdef int64_t[SIZE] counts
    cdef readonly int64_t total
    cdef readonly int64_t highest      # the largest value recorded, before it was put into a bucket
    cdef double sum

    cdef void add(self, int64_t value) noexcept nogil
