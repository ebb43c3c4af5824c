from libc.stdint cimport uint8_t, uint16_t, uint64_t

from kaa_gateway.kpudp.outbox cimport Outbox
from kaa_gateway.kpudp.peer cimport KpudpPeer, Shared
from kaa_gateway.kpudp.table cimport Table
from kaa_gateway.net.addresses cimport Address
from kaa_gateway.net.udp cimport DatagramCore


cdef class KpudpServer(DatagramCore):
    # wiring
    cdef object loop
    cdef Shared shared
    cdef Outbox outbox
    cdef readonly Table peers
    cdef double peer_timeout     # seconds
    # state
    cdef bint draining

    cdef int take_frames(
        self, const uint8_t* data, Py_ssize_t size, const Address* source, KpudpPeer known
    ) except -1
    cdef KpudpPeer admit(self, const Address* source, uint8_t epoch, KpudpPeer former)
    cdef int answer_reset(
        self, const Address* destination, KpudpPeer peer, uint8_t epoch, uint16_t message_id, uint16_t reason
    ) except -1
