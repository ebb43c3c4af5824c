from kaa_gateway.kp.resource_path cimport ResourcePath
from kaa_gateway.kp.session cimport Attachment, Endpoint, Session
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef class Waiting:
    # wiring
    cdef Session session
    # identity
    cdef bytes topic             # resource path of 1/KP, without request ID
    # state
    cdef double deadline         # loop time
    cdef Attachment attachment   # which counts as connected for it; None before `appear` and after `disappear`

    cdef bint matches(self, const ExtensionDataView* data, Endpoint endpoint) except -1
    cdef int split(self, ResourcePath* parts, Slice* token, Slice* path) noexcept
    cdef Attachment find_attachment(self)
    cdef int wait_for(self, Session session, Slice path, double deadline) except -1
    cdef bint appear(self, Sessions sessions) except -1
    cdef int disappear(self, Sessions sessions) except -1


cdef Slice without_request_id(Slice topic) noexcept nogil
