from libc.stdint cimport uint8_t, uint16_t, uint64_t

from kaa_gateway.kpudp.context cimport KpudpContext
from kaa_gateway.kpudp.peer cimport KpudpPeer
from kaa_gateway.kpudp.tables cimport PeerTable, RetransmissionTimer
from kaa_gateway.net.addresses cimport Address
from kaa_gateway.net.udp cimport DatagramCore


cdef class KpudpServer(DatagramCore):
    # wiring
    cdef KpudpContext context
    cdef RetransmissionTimer timer
    cdef readonly PeerTable peers
    # settings
    cdef double peer_timeout     # seconds
    # state
    cdef bint draining

    cdef int read_frames(
        self, const uint8_t* data, Py_ssize_t size, const Address* source, KpudpPeer peer, KpudpPeer current
    ) except -1
    cdef KpudpPeer open_peer(self, const Address* source, uint8_t epoch, KpudpPeer current)
    cdef int send_reset(
        self, const Address* destination, KpudpPeer peer, uint8_t epoch, uint16_t message_id, uint16_t reason
    ) except -1
