from kaa_gateway.coap.blocks cimport Body
from kaa_gateway.coap.exchanges cimport Exchange
from kaa_gateway.coap.options cimport Request
from kaa_gateway.coap.peer cimport CoapPeer
from kaa_gateway.wire.buffer cimport Slice


cdef int receive_block(
    CoapPeer peer, Exchange exchange, const Request* request, Slice payload, double now
) except -1
cdef int send_next_block(CoapPeer peer, Exchange exchange, const Request* request, double now) except -1
