from libc.stdint cimport uint8_t

from kaa_gateway.coap.context cimport CoapContext
from kaa_gateway.coap.multicast cimport MulticastDiscovery
from kaa_gateway.coap.outbox cimport Outbox
from kaa_gateway.coap.peer cimport CoapPeer
from kaa_gateway.net.addresses cimport Address, AddressTable
from kaa_gateway.net.udp cimport DatagramCore
from kaa_gateway.wire.coap cimport Format, MessageView


cdef class CoapServer(DatagramCore):
    # wiring
    cdef CoapContext context
    # settings
    cdef Py_ssize_t peers_max
    cdef MulticastDiscovery multicast  # None if no group is joined
    # state
    cdef AddressTable peers
    cdef object silence        # OrderedDict whose keys are the CoapPeers, about the longest silent first

    cdef int reject(self, const Address* source, const MessageView* view, Format format) except -1
    cdef int send_reset(self, const Address* source, const MessageView* view) except -1
    cdef int refuse_long_token(self, const Address* source, const MessageView* view) except -1
    cdef CoapPeer find_peer(self, const Address* source, double now)
    cdef CoapPeer open_peer(self, const Address* source, double now)
    cdef Outbox new_outbox(self, const Address* source)
    cdef bint make_room(self) except -1
    cdef int close_peer(self, CoapPeer peer) except -1
    cdef int expire_peers(self, double now) except -1
