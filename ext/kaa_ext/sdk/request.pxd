from kaa_gateway.wire.esp cimport ClientDataView


cdef class Request:
    # wiring
    cdef bytes datum           # ClientData, which `view` borrows from
    cdef ClientDataView view
    cdef readonly str resource_path
    cdef readonly str trace_parent
    cdef readonly object parameters
    cdef readonly str route
    cdef str reply             # the subject of the answer; "" if the gateway gives none
    cdef object stored         # StoredMessage, or None
    cdef double received_at    # seconds, by clock.monotonic
    # state
    cdef bytes body            # the payload, once it was asked for


cdef Request read_request(bytes datum, str reply, str trace_parent, object stored)
