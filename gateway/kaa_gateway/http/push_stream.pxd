from kaa_gateway.http.waiting_request cimport WaitingRequest
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef class PushStream(WaitingRequest):
    # state
    cdef bint headed          # the head of the response is written
    cdef double written       # loop time of the last event or comment

    cdef int start(self) except -1
    cdef int send_event(self, bytes name, const ExtensionDataView* data) except -1
