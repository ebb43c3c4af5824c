from libc.stdint cimport uint8_t

from kaa_gateway.coap.retransmission cimport Transmission
from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.kp.session cimport Endpoint
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef class Notification:
    # A notification that is not yet sent.
    cdef uint8_t code
    cdef int content_format
    cdef bytes body
    cdef Receipt receipt             # of the push, or None


cdef class Observation:
    # The registration of a peer on a resource of an endpoint.
    # wiring
    cdef object peer                 # CoapPeer
    cdef Endpoint endpoint
    # identity
    cdef bytes token                 # of the CoAP request
    cdef bytes transfer_key          # identifies the blocks of a notification
    cdef bytes app_version
    cdef bytes extension
    cdef bytes path                  # behind the endpoint token, without leading slash
    # what the registration asked for
    cdef int accept
    cdef int szx
    # state
    cdef Transmission outstanding    # the notification that is not yet acknowledged, or None
    cdef object queue                # deque of Notification: those that follow it

    cdef bint matches(self, const ExtensionDataView* data, Endpoint endpoint) noexcept


cdef class ObservationTable:
    # wiring
    cdef Counters counters
    # settings
    cdef Py_ssize_t observations_max
    cdef Py_ssize_t per_peer_max
    # state
    cdef object observations         # OrderedDict of Observation -> None, the next to be checked first
    cdef Py_ssize_t queued_bytes     # of all queues

    cdef Observation register(self, object peer, dict of_peer, bytes token, bytes transfer_key, Endpoint endpoint)
    cdef bint remove(self, dict of_peer, Observation observation) except -1
    cdef int enqueue(
        self, Observation observation, uint8_t code, int content_format, Slice body, Receipt receipt
    ) except -1
    cdef Notification dequeue(self, Observation observation)
    cdef int put_back(self, Observation observation, Notification notification) except -1
    cdef list next_unserved(self, dict app_versions)
