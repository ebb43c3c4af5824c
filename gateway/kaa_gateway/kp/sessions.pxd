from libc.stdint cimport int32_t, uint32_t, uint64_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.endpoints cimport Endpoints
from kaa_gateway.kp.population cimport Population
from kaa_gateway.kp.presence cimport Presence
from kaa_gateway.kp.quotas cimport Quotas
from kaa_gateway.kp.refusal cimport Refusal
from kaa_gateway.kp.session cimport Attachment, Endpoint, Session
from kaa_gateway.wire.buffer cimport Slice


cdef struct Slot:
    uint32_t generation     # of the session in it, or of the next one
    int32_t next_free       # the slot that is used after this one, while both are free; -1: none


cdef class Sessions:
    # wiring
    cdef readonly Endpoints endpoints
    cdef readonly Presence presence
    cdef readonly Quotas quotas
    cdef object slices            # Slices
    # state
    cdef list sessions            # by slot; None where a slot is free
    cdef Slot* slots
    cdef Py_ssize_t capacity      # of `slots`
    cdef int32_t first_free
    cdef int32_t last_free
    cdef readonly Py_ssize_t count
    cdef Py_ssize_t endpoints_per_session_max
    cdef Refusal refusal          # why the last attachment was refused

    cdef int open(self, Session session) except -1
    cdef int32_t take_slot(self) except -1
    cdef int close(self, Session session) except -1
    cdef int set_online(self, Session session, bint online) except -1
    cdef Session find(self, uint64_t key)
    cdef Endpoint endpoint_for(self, Session session, Slice endpoint_id)
    cdef Attachment attach(self, Session session, Endpoint endpoint, bytes token, bytes app_version, identity)
    cdef Refusal refusal_of(self, Session session, Endpoint endpoint, bytes app_version, Population population)
    cdef bint has_connections(self, Endpoint endpoint, Py_ssize_t count) except -1
    cdef int count_connection(self, Session session, bint connected) noexcept
    cdef int detach(self, Session session, Attachment attachment) except -1
    cdef int unlink(self, Session session, Attachment attachment) except -1
    cdef int leave(self, Session session, Attachment attachment) except -1
    cdef int add_waiter(self, Session session, Attachment attachment) except -1
    cdef int remove_waiter(self, Session session, Attachment attachment) except -1
    cdef int update_presence(self, Session session, Attachment attachment) except -1
