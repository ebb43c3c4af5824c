"""The peers of a datagram protocol by their addresses. A look-up makes no object; how many peers there may be is the
protocol's business.
"""

import secrets

from libc.string cimport memcmp, memcpy, memset

cdef enum:
    BUCKETS_AT_FIRST = 64
    WORDS = 4  # of 64 bits, that hold an address


cdef class UdpPeer(Session):
    """A session whose device is known by its address."""


cdef class PeersByAddress:
    """Peers found by address. The hash is keyed, because senders choose their addresses."""

    def __init__(self):
        self.buckets = [None] * BUCKETS_AT_FIRST
        self.secret[0] = secrets.randbits(64)
        self.secret[1] = secrets.randbits(64) | 1

    cdef uint64_t hash_of(self, const Address* address) noexcept:
        cdef uint64_t[WORDS] words
        cdef uint64_t result = self.secret[0]
        cdef int i
        memset(words, 0, sizeof(words))
        memcpy(words, address.bytes, <size_t>address.size)
        for i in range(WORDS):
            result = (result ^ words[i]) * self.secret[1]
            result ^= result >> 32
        return result

    cdef UdpPeer find(self, const Address* address):
        """The peer of an address, or None. Hot path."""
        cdef UdpPeer peer = <UdpPeer>self.buckets[
            <Py_ssize_t>(self.hash_of(address) & <uint64_t>(len(self.buckets) - 1))
        ]
        while peer is not None and (
                peer.address.size != address.size
                or memcmp(peer.address.bytes, address.bytes, <size_t>address.size) != 0):
            peer = peer.chained
        return peer

    cdef int add(self, UdpPeer peer) except -1:
        """Add a peer whose address no other has."""
        cdef Py_ssize_t bucket
        if self.count >= len(self.buckets):
            self.resize(2 * len(self.buckets))
        peer.address_hash = self.hash_of(&peer.address)
        bucket = <Py_ssize_t>(peer.address_hash & <uint64_t>(len(self.buckets) - 1))
        peer.chained = <UdpPeer>self.buckets[bucket]
        self.buckets[bucket] = peer
        self.count += 1
        return 0

    cdef int remove(self, UdpPeer peer) except -1:
        """Take out a peer that is in it."""
        cdef Py_ssize_t bucket = <Py_ssize_t>(peer.address_hash & <uint64_t>(len(self.buckets) - 1))
        cdef UdpPeer before = <UdpPeer>self.buckets[bucket]
        if before is peer:
            self.buckets[bucket] = peer.chained
        else:
            while before is not None and before.chained is not peer:
                before = before.chained
            if before is None:
                raise KeyError(peer)
            before.chained = peer.chained
        peer.chained = None
        self.count -= 1
        return 0

    cdef int resize(self, Py_ssize_t size) except -1:
        cdef list former = self.buckets
        cdef UdpPeer peer, following
        cdef Py_ssize_t bucket
        self.buckets = [None] * size
        for peer in former:
            while peer is not None:
                following = peer.chained
                bucket = <Py_ssize_t>(peer.address_hash & <uint64_t>(size - 1))
                peer.chained = <UdpPeer>self.buckets[bucket]
                self.buckets[bucket] = peer
                peer = following
        return 0
