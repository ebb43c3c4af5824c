from kaa_gateway.kp.session cimport Session
from kaa_gateway.kp.uplink cimport Message, Outcome, Uplink
from kaa_gateway.wire.buffer cimport Slice


cdef class Identification:
    # wiring
    cdef Uplink uplink
    cdef object resolve              # (application version, token) -> Future of Identity
    # settings
    cdef Py_ssize_t waiting_count_max    # messages of a session
    cdef Py_ssize_t waiting_bytes_max
    # state
    cdef list unidentified           # (session, key) of topic filters whose provider could not tell
    cdef readonly Py_ssize_t waiting_messages   # of all sessions

    cdef Outcome wait(self, Session session, tuple key, const Message* message) except *
    cdef int start(self, Session session, tuple key) except -1
    cdef int identify(self, Session session, Slice topic_filter) except -1
    cdef int finish(self, Session session, tuple key, refusal) except -1
