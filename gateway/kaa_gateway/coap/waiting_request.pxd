from kaa_gateway.coap.exchanges cimport Exchange
from kaa_gateway.coap.peer cimport CoapPeer
from kaa_gateway.kp.session cimport Attachment, Delivery, Endpoint
from kaa_gateway.wire.buffer cimport Slice


cdef bint prepare_waiting(CoapPeer peer, Exchange exchange, Slice path, double deadline) except -1
cdef int begin_waiting(CoapPeer peer, Exchange exchange) except -1
cdef bint deliver_to_waiting(CoapPeer peer, Delivery* delivery, Endpoint endpoint) except -1
cdef int expire(CoapPeer peer, Exchange exchange) except -1
cdef int end_waits_for(CoapPeer peer, Attachment attachment) except -1
cdef int end_waiting(CoapPeer peer, Exchange exchange) except -1
