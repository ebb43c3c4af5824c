from cpython.object cimport PyObject

from kaa_gateway.kp.session cimport Endpoint
from kaa_gateway.wire.buffer cimport Slice


cdef enum:
    RECENT_BITS = 12
    RECENT = 1 << RECENT_BITS  # places


cdef class Endpoints:
    # state
    cdef dict by_id                # endpoint ID -> Endpoint that a session, a cached route or the presence holds
    cdef PyObject* recent[RECENT]  # borrowed from by_id: the Endpoint that was found last in each place, or NULL
    cdef Py_ssize_t departed_max   # 0: traffic is not reported
    cdef dict departed             # (application version, endpoint ID) -> unreported traffic of those that are gone
    cdef object on_departed_full   # called when there are departed_max of them

    cdef Endpoint make(self, bytes endpoint_id)
    cdef Endpoint find(self, Slice endpoint_id)
    cdef int hold(self, Endpoint endpoint) except -1
    cdef int release(self, Endpoint endpoint) except -1
    cdef int set_app_version(self, Endpoint endpoint, bytes app_version) except -1
    cdef int keep_traffic(self, Endpoint endpoint) except -1
