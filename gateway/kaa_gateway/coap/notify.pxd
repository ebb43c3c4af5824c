from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from kaa_gateway.kp.sessions cimport Endpoint
from kaa_gateway.coap.answer cimport Answer
from kaa_gateway.coap.exchanges cimport Exchange
from kaa_gateway.coap.messages cimport CoapMessages
from kaa_gateway.coap.observe cimport Observer
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.coap cimport Type
from kaa_gateway.wire.esp cimport ExtensionDataView


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
