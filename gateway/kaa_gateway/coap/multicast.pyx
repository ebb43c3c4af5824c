"""Discovery by multicast: requests for /.well-known/core that were sent to All CoAP Nodes.

Everything else that comes to a group is ignored: there is no acknowledgement, no Reset and no error response. Each
response is sent after a random part of the leisure time, so that many servers do not answer at once. It is at most
three times as large as its request, because the source may be forged; the client fetches further blocks from our own
address.

Source: RFC 7252 sections 8 and 11.3; RFC 6690 section 4.1.
"""

import random
from heapq import heappop, heappush

from libc.string cimport memcpy

from kaa_gateway.coap.exchanges cimport KEPT_TOKEN_MAX
from kaa_gateway.coap.options cimport (
    LINK_FORMAT, NO_FAULT, SZX_MAX, Request, Response, encode_response, queries_of, read_request, start_response,
)
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.coap cimport CONTENT, GET, NON, WELL_FORMED, MessageView, read_header

cdef enum:
    WAITING_MAX = 64              # responses; further requests are ignored
    AMPLIFICATION_MAX = 3         # bytes sent for a byte received

cdef bytes WELL_KNOWN_CORE = b".well-known/core"


cdef class MulticastDiscovery:
    """Answers for one server, after up to `leisure` seconds."""

    def __init__(self, CoapContext context not None, double leisure):
        self.context = context
        self.leisure = leisure
        self.waiting = []
        self.last_message_id = random.getrandbits(16)

    cdef int receive(self, const uint8_t* data, Py_ssize_t size, const Address* source, double now) except -1:
        """Handle a datagram to a group, which is borrowed for the call."""
        cdef CoapContext context = self.context
        cdef MessageView view
        cdef Request request
        cdef Response response
        cdef bytes body, etag
        if read_header(data, size, &view) != WELL_FORMED or view.type != NON or view.code != GET \
                or view.token.size > KEPT_TOKEN_MAX or read_request(&view, context.path, &request) != WELL_FORMED \
                or request.fault != NO_FAULT or context.path.copy() != WELL_KNOWN_CORE \
                or (request.accept >= 0 and request.accept != LINK_FORMAT) \
                or (request.has_block2 and request.block2.number) or request.no_response & 2 \
                or context.draining or len(self.waiting) >= WAITING_MAX:
            return context.counters.count("dropped", "coap_multicast")
        body, etag = context.links.select(queries_of(&view))
        if not body:
            return 0  # another server may have what the query asks for
        self.last_message_id += 1
        start_response(&response, CONTENT)
        response.body = slice_of(body)
        response.etag = slice_of(etag)
        response.kept = True
        response.content_format = LINK_FORMAT
        response.has_block2 = request.has_block2
        if request.has_block2:
            response.szx = min(request.block2.szx, <int>SZX_MAX)
        if not encode_response(
            context.out, NON, self.last_message_id, view.token, &response, AMPLIFICATION_MAX * size
        ):
            return context.counters.count("dropped", "coap_multicast")
        heappush(self.waiting, (
            now + random.random() * self.leisure, self.last_message_id,
            (<const uint8_t*>source)[:sizeof(Address)], context.out.copy(),
        ))
        return 0

    cdef bint send_due(self, double now) except -1:
        """Send the responses that are due. Return False: there are never too many for one call."""
        cdef Address address
        cdef bytes source, datagram
        while self.waiting and self.waiting[0][0] <= now:
            _, _, source, datagram = heappop(self.waiting)
            memcpy(&address, <const uint8_t*>source, sizeof(Address))
            self.context.core.socket.send(&address, <const uint8_t*>datagram, len(datagram))
        return False
