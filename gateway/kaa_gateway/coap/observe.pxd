from kaa_gateway.kp.sessions cimport Endpoint
from kaa_gateway.coap.exchanges cimport Transmission
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef class Observer:
    # A registration of a peer on a resource of an endpoint.
    # wiring
    cdef Endpoint endpoint
    # identity
    cdef bytes token                 # of the CoAP request
    cdef bytes resource              # what blocks of a notification are found by
    cdef bytes extension
    cdef bytes path                  # behind the endpoint token, without leading slash
    # what the registration asked for
    cdef int accept
    cdef int szx
    # state
    cdef Transmission outstanding    # the notification that is not yet acknowledged, or None
    cdef object queue                # deque of (code, content format, body): those that follow it

    cdef bint matches(self, const ExtensionDataView* data, Endpoint endpoint) noexcept


cdef Observer observer_of(bytes token, bytes resource, Slice topic, Endpoint endpoint)
