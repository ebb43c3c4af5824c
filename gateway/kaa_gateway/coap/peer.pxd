cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from kaa_gateway.coap.blocks cimport Body
from kaa_gateway.coap.context cimport CoapContext
from kaa_gateway.coap.exchanges cimport CompletedOfPeer, CompletedRequest, Exchange, ExchangeTable
from kaa_gateway.coap.observer cimport Observer
from kaa_gateway.coap.options cimport Refusal, Request, Response
from kaa_gateway.coap.outbox cimport Outbox
from kaa_gateway.kp.session cimport Endpoint, Session
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.coap cimport MessageView
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef class CoapPeer(Session)

cdef CoapPeer new_peer(CoapContext context, Outbox outbox, double now)


@cython.final
cdef class CoapPeer(Session):
    # wiring
    cdef CoapContext context
    cdef Outbox outbox
    cdef Observer observer
    # state
    cdef double heard                    # loop time of its last datagram, roughly
    # state: requests
    cdef ExchangeTable exchanges         # open
    cdef CompletedOfPeer completed       # those that are over
    cdef Py_ssize_t pending_count        # open exchanges that were forwarded
    cdef uint32_t generation             # tells requests with the same message ID apart
    cdef Exchange waiting                # the first of those that wait for a push, a chain; or None
    cdef double request_credit           # requests that it may send now
    cdef double request_credit_at        # loop time of that number

    # requests
    cdef int receive_request(self, const MessageView* view, const Request* request, double now) except -1
    cdef Exchange open_exchange(self, const MessageView* view, double now)
    cdef int forward(self, Exchange exchange, Slice payload, double now) except -1
    # duplicates
    cdef int repeat_acknowledgement(self, Exchange exchange) except -1
    cdef int repeat_response(self, const CompletedRequest* completed) except -1
    cdef int acknowledge_separately(self, Exchange exchange) except -1
    # responses
    cdef Exchange find_exchange(self, uint32_t sequence)
    cdef int start_response_with(
        self, Exchange exchange, const ExtensionDataView* data, Response* response
    ) noexcept
    cdef int respond_with(self, Exchange exchange, const ExtensionDataView* data, Endpoint endpoint) except -1
    cdef int list_links(self, Exchange exchange, const MessageView* view, const Request* request) except -1
    cdef int refuse(self, Exchange exchange, Refusal refusal) except -1
    cdef int respond_error(self, Exchange exchange, uint8_t code, bytes diagnostic) except -1
    cdef int respond(self, Exchange exchange, Response* response) except -1
    cdef int stop_waiting(self, Exchange exchange) except -1
    cdef int complete(self, Exchange exchange, Slice datagram) except -1
    # limits
    cdef bint may_request(self, double now) noexcept
    cdef bint is_busy(self) noexcept
    cdef int close(self) except -1
