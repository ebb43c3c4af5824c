from libc.stdint cimport uint64_t

from kaa_gateway.kp.sessions cimport Session
from kaa_gateway.net.udp cimport Address


cdef class UdpPeer(Session):
    # Whoever sends from one address.
    cdef Address address
    cdef uint64_t address_hash
    cdef UdpPeer chained             # the next of its bucket


cdef class PeersByAddress:
    # state
    cdef list buckets                # a power of two of them: the first UdpPeer of each, or None
    cdef uint64_t[2] secret
    cdef readonly Py_ssize_t count

    cdef UdpPeer find(self, const Address* address)
    cdef int add(self, UdpPeer peer) except -1
    cdef int remove(self, UdpPeer peer) except -1
    cdef uint64_t hash_of(self, const Address* address) noexcept
    cdef int resize(self, Py_ssize_t size) except -1
