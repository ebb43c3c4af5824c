from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.endpoints cimport Endpoints
from kaa_gateway.kp.session cimport Attachment, Endpoint, Session


cdef class Presence:
    # wiring
    cdef Counters counters
    cdef Endpoints endpoints
    cdef object listener          # has `appeared` and `disappeared`
    # state
    cdef double now               # loop time of the last look for idle endpoints
    cdef double look_period       # seconds between looks at a watched endpoint; 0: none is watched
    cdef Py_ssize_t watched_max
    cdef Py_ssize_t watched_count
    cdef Endpoint first_watched   # in order of next_look; None if there are none
    cdef Endpoint last_watched

    cdef int appear(self, Endpoint endpoint, bytes app_version) except -1
    cdef int disappear(self, Endpoint endpoint, bytes app_version) except -1
    cdef int note_use(self, Session session, Attachment attachment) except -1
    cdef int watch(self, Endpoint endpoint, bytes app_version) except -1
    cdef int unwatch(self, Endpoint endpoint) except -1
    cdef int append(self, Endpoint endpoint) except -1
    cdef int remove(self, Endpoint endpoint) except -1
