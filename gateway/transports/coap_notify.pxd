from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from gateway.kp.sessions cimport Endpoint
from gateway.transports.coap_answer cimport Answer
from gateway.transports.coap_exchanges cimport Exchange
from gateway.transports.coap_messages cimport CoapMessages
from gateway.transports.coap_observe cimport Observer
from gateway.wire.buffer cimport Slice
from gateway.wire.coap cimport Type
from gateway.wire.esp cimport ExtensionDataView


cdef class CoapNotifier(CoapMessages):
    # state
    cdef dict observers                  # CoAP token -> Observer
    cdef uint32_t observe_sequence

    cdef bint compose(
        self, Type type, uint16_t message_id, Slice token, Answer* answer, Slice resource
    ) except -1
    cdef int64_t observe(self, Exchange exchange, Endpoint endpoint) except -2
    cdef int deregister(self, Observer observer) except -1
    cdef int notify(self, Observer observer, const ExtensionDataView* data) except -1
    cdef int send_notification(self, Observer observer, uint8_t code, int format, Slice body) except -1
    cdef int send_queued(self, Observer observer) except -1
