"""What the peers of a KP/UDP server share."""

from collections import deque

from kaa_gateway.kp.session cimport Session
from kaa_gateway.kpudp.outbox cimport Outbox


cdef class KpudpContext:
    """The wiring that the peers of a server share, and their datagrams of this tick."""

    def __init__(self):
        self.taken = deque()
        self.unsent = []
        self.spare = []
        self.scratch = Buffer()

    cdef Buffer open_output(self, outbox):
        """Return the buffer for a peer's datagram of this tick. Hot path."""
        self.tick.add(self)
        self.unsent.append(outbox)
        return self.spare.pop() if self.spare else Buffer()

    cdef int write_due(self) except -1:
        """Send the datagrams of this tick, at its end. Hot path."""
        cdef Outbox outbox
        unsent = self.unsent
        self.unsent = []
        for outbox in unsent:
            outbox.send_output()
        return 0

    cdef int evict(self, Place place) except -1:
        """End the peer whose place has to be given up, if there is one."""
        cdef Session peer
        if place is not None:
            peer = place.peer  # holds the peer, which gives up its place
            peer.end("kpudp_too_many_peers")
        return 0
