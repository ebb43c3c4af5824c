from libc.stdint cimport uint8_t, uint32_t

from kaa_gateway.kp.sessions cimport Endpoint
from kaa_gateway.coap.answer cimport Answer
from kaa_gateway.coap.exchanges cimport Exchange
from kaa_gateway.coap.notify cimport CoapNotifier
from kaa_gateway.coap.request cimport Request
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.coap cimport MessageView
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef class CoapPeer(CoapNotifier):
    cdef int on_request(self, const MessageView* view, const Request* request, double now) except -1
    cdef bint is_busy(self) noexcept

    cdef tuple judge(self, const MessageView* view, const Request* request, double now)
    cdef int serve(self, Exchange exchange, const MessageView* view, const Request* request, double now) except -1
    cdef int name_resource(self, Exchange exchange, Slice tag) except -1
    cdef int publish(self, Exchange exchange, Slice payload, double now) except -1
    cdef int on_block(self, Exchange exchange, const Request* request, Slice payload, double now) except -1
    cdef int continue_response(self, Exchange exchange, const Request* request, double now) except -1
    cdef int list_links(self, Exchange exchange, const Request* request, double now) except -1

    cdef Exchange find(self, uint32_t sequence)
    cdef int answer(self, Exchange exchange, const ExtensionDataView* data, Endpoint endpoint) except -1
    cdef int refuse(self, Exchange exchange, tuple refusal) except -1
    cdef int answer_error(self, Exchange exchange, uint8_t code, str phrase) except -1
    cdef int respond(self, Exchange exchange, Answer* answer) except -1
