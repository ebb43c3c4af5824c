from libc.stdint cimport uint32_t

from kaa_gateway.http.connection cimport HttpConnection
from kaa_gateway.kp.session cimport Attachment, Delivery, Endpoint
from kaa_gateway.kp.waiting cimport Waiting
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef class WaitingRequest(Waiting):
    # wiring
    cdef HttpConnection connection     # None once it is answered
    # identity
    cdef uint32_t number
    # state
    cdef bint begun                    # NATS has its message

    cdef int begin(self) except -1
    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1
    cdef bint take_answer(self, const ExtensionDataView* data) except -1
    cdef bint take_failure(self) except -1
    cdef int check(self, double now) except -1
    cdef int on_detached(self, Attachment attachment) except -1
    cdef int expire(self) except -1
    cdef int cancel(self) except -1


cdef WaitingRequest await_push(HttpConnection connection, uint32_t number, double now)
