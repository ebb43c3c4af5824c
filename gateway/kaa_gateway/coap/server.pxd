from libc.stdint cimport uint8_t

from kaa_gateway.coap.messages cimport CoapShared
from kaa_gateway.coap.peer cimport CoapPeer
from kaa_gateway.net.addresses cimport Address, AddressTable
from kaa_gateway.net.udp cimport DatagramCore
from kaa_gateway.wire.coap cimport Format, MessageView


cdef class CoapServer(DatagramCore):
    # wiring
    cdef CoapShared shared
    # settings
    cdef Py_ssize_t peers_max
    # state
    cdef AddressTable peers
    cdef object silence        # OrderedDict whose keys are the CoapPeers, about the longest silent first

    cdef CoapPeer find_peer(self, const Address* source, bint makes_one, double now)
    cdef bint make_room(self) except -1
    cdef int close_peer(self, CoapPeer peer) except -1
    cdef int reject(self, const Address* source, const MessageView* view, Format format) except -1
    cdef int send_reset(self, const Address* source, const MessageView* view) except -1
    cdef int expire_peers(self, double now) except -1
