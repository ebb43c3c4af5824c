from libc.stdint cimport int64_t

from kaa_ext.sdk.request cimport Request
from kaa_ext.sdk.route cimport Route

cdef class Dispatcher:
    # wiring
    cdef readonly object extension
    cdef readonly list middleware
    cdef readonly list traced        # the same and those for traced requests only, in order
    cdef list observers              # called for each response with an error status
    cdef readonly object routes
    cdef object send                 # Connection.send
    cdef object room                 # Connection.room
    cdef object execution            # the forms of handlers that need a task
    cdef readonly dict stats
    cdef readonly object limited     # LimitedLog
    cdef bytes instance              # the name of the extension
    cdef str affinity                # the reply-to of answers
    cdef Py_ssize_t concurrency      # requests in progress at a time
    cdef Py_ssize_t waiting_max      # requests
    cdef Py_ssize_t waiting_bytes_max
    # state
    cdef public bint draining
    cdef readonly set tasks          # requests in progress and other work that a drain waits for
    cdef readonly Py_ssize_t running  # requests in progress
    cdef object queue                # deque of requests that wait
    cdef Py_ssize_t queued_bytes
    cdef bint held                   # NATS takes answers more slowly than they are made
    cdef bint resuming               # `resume` is scheduled
    cdef int64_t held_at             # when a request last waited, in milliseconds of UNIX time
    # counters of each request; `stats` has the others
    cdef int64_t requests
    cdef int64_t responses
    cdef int64_t unanswered

    cdef int receive(self, bytes datum, str reply, str trace_parent, object stored) except -1
    cdef int begin(self, Request request) except -1
    cdef int note_skew(self, int64_t difference) except -1
    cdef int run(self, Route route, Request request) except -1
    cdef int gather(self, Route route, Request request, object future) except -1
    cdef int release_slots(self, Py_ssize_t count) except -1
    cdef int conclude(self, Route route, Request request, object result) except -1
    cdef int answer(self, Route route, Request request, int status_code, bytes payload, str reason_phrase) except -1
    cdef int tell(self, Request request, int status_code, str reason_phrase) except -1
    cdef int publish(self, Request request, int status_code, bytes payload, str reason_phrase) except -1
    cdef bytes encode(self, Request request, int status_code, bytes payload, str reason_phrase)
    cdef int done(self, Request request) except -1
    cdef bint retried(self, Request request, error) except -1
    cdef object failure(self, Route route, error)
