cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t

from kaa_gateway.coap.context cimport CoapContext
from kaa_gateway.coap.exchanges cimport Exchange
from kaa_gateway.coap.observations cimport Observation
from kaa_gateway.coap.outbox cimport Outbox
from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.kp.session cimport Endpoint
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef enum:
    NOTIFICATION_MAX_AGE = 43200    # seconds: an observer that hears nothing renews its observation twice a day

cdef dict NONE_OBSERVED


@cython.final
cdef class Observer:
    # wiring
    cdef CoapContext context
    cdef Outbox outbox
    cdef object peer                     # CoapPeer; None once it is gone
    # state
    cdef dict observations               # CoAP token -> Observation
    cdef uint32_t observe_sequence

    cdef int64_t register(self, Exchange exchange, Endpoint endpoint) except -2
    cdef int remove(self, Observation observation) except -1
    cdef bint deliver(self, const ExtensionDataView* data, Endpoint endpoint, PyObject* receipt) except -1
    cdef int notify(self, Observation observation, const ExtensionDataView* data, Receipt receipt) except -1
    cdef bint send_notification(
        self, Observation observation, uint8_t code, int content_format, Slice body, Receipt receipt
    ) except -1
    cdef int send_queued(self, Observation observation) except -1
    cdef int send_all_queued(self) except -1
    cdef int end_all(self, uint8_t code) except -1
    cdef int close(self) except -1
