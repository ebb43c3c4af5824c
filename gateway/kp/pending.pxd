from libc.stdint cimport uint32_t, uint64_t

from gateway.kp.sessions cimport Session


cdef class PendingRequests:
    # state
    cdef dict entries          # session key and sequence -> (deadline, session), oldest first
    cdef Py_ssize_t capacity
    cdef readonly double timeout
    # counters
    cdef readonly uint64_t expired

    cdef bint add(self, Session session, uint32_t sequence, double now) except -1
    cdef int forget(self, uint64_t session, uint32_t sequence) except -1
