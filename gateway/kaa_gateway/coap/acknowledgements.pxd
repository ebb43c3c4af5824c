from libc.stdint cimport uint16_t

from kaa_gateway.coap.peer cimport CoapPeer
from kaa_gateway.coap.retransmission cimport Transmission


cdef int receive_acknowledgement(CoapPeer peer, uint16_t message_id, double now) except -1
cdef int receive_reset(CoapPeer peer, uint16_t message_id) except -1
cdef int retransmit(CoapPeer peer, Transmission transmission, double now) except -1
cdef int send_held(CoapPeer peer, double now) except -1
