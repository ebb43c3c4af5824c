from cpython.object cimport PyObject
from libc.stdint cimport int32_t, uint32_t, uint64_t

from kaa_gateway.counters cimport Histogram
from kaa_gateway.kp.session cimport Session


cdef struct Pending:
    # A request that waits. Places are named by their index; -1 is none.
    PyObject* session      # owned
    uint64_t key           # session key and sequence
    double deadline        # seconds, of the loop
    double started         # seconds, by clock.monotonic
    int32_t earlier        # in the order of deadlines
    int32_t later
    int32_t chained        # the next of its bucket, or the next free place


cdef class PendingRequests:
    # state
    cdef Pending* places
    cdef int32_t place_count       # allocated; as many buckets
    cdef int32_t* buckets          # key -> place
    cdef int32_t first             # the earliest deadline
    cdef int32_t last
    cdef int32_t first_free
    cdef Py_ssize_t waiting
    cdef readonly Py_ssize_t capacity
    cdef readonly double timeout   # seconds
    # counters
    cdef readonly uint64_t expired
    cdef readonly Histogram latency   # from a request to the answer of its extension

    cdef bint add(self, Session session, uint32_t sequence, double now) except -1
    cdef int answered(self, uint64_t session, uint32_t sequence) except -1
    cdef int forget(self, uint64_t session, uint32_t sequence) except -1
    cdef int grow(self) except -1
    cdef int remove(self, int32_t place, int32_t* link) except -1
    cdef int32_t* link_to(self, uint64_t key) noexcept
