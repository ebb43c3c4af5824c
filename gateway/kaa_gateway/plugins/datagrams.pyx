"""A plug-in's peers over UDP or DTLS: each datagram is one message.

A peer is an address. Addresses can be forged, so one that has not been admitted is sent at most three times the bytes
that have come from it (RFC 9000 section 8.1), and gives way to others first.

Source: docs/protocols.md.
"""

from collections import OrderedDict
from heapq import heapify, heappop, heappush

from kaa_gateway.net.proxy cimport describe_peer

cdef enum:
    AMPLIFICATION = 3          # bytes that may be sent for each byte of a peer that is not admitted
    STRANGERS_SHARE = 8        # one in so many peers may be one that is not admitted
    DUE_PER_CALL = 500         # peers and timers that are handled at once
    STALE_TIMERS_MAX = 1024    # entries of peers that are gone or have an earlier one, beside one for each peer


cdef class DatagramSession(PluginSession):
    """The session of one address."""

    def describe(self):
        """Return what an operator may see of it."""
        address = b"" if self.peers is None else self.peers.socket.client_address(&self.address)
        return {**PluginSession.describe(self), **describe_peer(address, None)}

    cdef int write(self, bytes data) except -1:
        """Send one datagram. Hot path."""
        cdef Py_ssize_t size = len(data)
        if self.peers is None:
            return 0
        if not self.admitted:
            if self.credit < <uint64_t>size:
                return self.counters.count("dropped", "plugin_amplification")
            self.credit -= <uint64_t>size
        if size > self.peers.socket.message_size_max(&self.address):
            return self.counters.count("dropped", "plugin_datagram_too_large")
        return self.peers.socket.send(&self.address, <const uint8_t*>data, size)

    cdef int admit(self) except -1:
        cdef DatagramPeers peers = self.peers
        if self.admitted or peers is None:
            return 0
        self.admitted = True
        del peers.strangers[self]
        peers.known[self] = None
        return 0

    cdef int disconnect_device(self) except -1:
        """Leave the address at the end of this tick: the plug-in may be within a call."""
        self.server.loop.call_soon(self.leave)
        return 0

    def leave(self):
        """Forget the address, and end the DTLS session that it has."""
        cdef DatagramPeers peers = self.peers
        if peers is None:
            return
        self.peers = None
        (peers.known if self.admitted else peers.strangers).pop(self)
        peers.by_address.remove(&self.address)
        self.counters.connections_closed[<int>self.protocol] += 1
        self.finish()
        peers.socket.disconnect(&self.address)

    cdef int on_timer_set(self) except -1:
        if self.peers is not None and (self.noted_timer == 0 or self.timer_at < self.noted_timer):
            self.noted_timer = self.timer_at
            heappush(self.peers.timers, (self.timer_at, self.key, self))
            self.peers.drop_stale_timers()
        return 0


cdef class DatagramPeers(DatagramCore):
    """The peers of one socket, as its core: `peers` at most."""

    def __init__(self, PluginServer server not None, Py_ssize_t peers):
        self.server = server
        self.peers_max = peers
        self.by_address = AddressTable()
        self.strangers = OrderedDict()
        self.known = OrderedDict()
        self.timers = []
        self.now = server.loop.time()

    def count(self):
        """Return the number of peers."""
        return len(self.strangers) + len(self.known)

    def timer_count(self):
        """Return the number of entries of timers, of which some may be stale."""
        return len(self.timers)

    def begin_drain(self):
        """Take no new peers."""
        self.server.begin_drain()

    def stop(self):
        """Let the plug-in say goodbye to each peer, and end them all."""
        cdef DatagramSession session
        for session in [*self.known, *self.strangers]:
            session.tell("stopping", ())
            session.ended = True
            session.leave()

    cdef int receive(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1:
        """Hand a datagram to the session of its address, which may be new. Hot path."""
        cdef DatagramSession session = <DatagramSession>self.by_address.find(source)
        if size > self.server.message_size_max:
            return self.server.counters.count("dropped", "plugin_datagram_too_large")
        if session is None:
            if self.server.draining:
                return self.server.counters.count("dropped", "plugin_draining")
            session = self.open_peer(source)
        if session.ended:
            return 0
        session.last_received = self.server.loop.time()
        if session.admitted:
            self.known.move_to_end(session)
        else:
            self.strangers.move_to_end(session)
            session.credit += AMPLIFICATION * <uint64_t>size
        if session.blocked:
            return self.server.counters.count("dropped", "plugin_busy")
        return session.receive_message(data[:size])

    cdef DatagramSession open_peer(self, const Address* source):
        """Open the session of an address, for which another one may have to go."""
        cdef DatagramSession session = DatagramSession(self.server)
        cdef Py_ssize_t strangers_max = max(self.peers_max // STRANGERS_SHARE, 1)
        self.evict(self.strangers, strangers_max)
        self.evict(self.known, max(self.peers_max - strangers_max, 1))
        session.peers = self
        session.address = source[0]
        client = self.socket.client_of(source)
        if client is not None:
            session.set_client(client)
        self.by_address.add(source, session)
        self.strangers[session] = None
        self.server.counters.connections_opened[<int>self.server.protocol] += 1
        session.open()
        return session

    cdef int evict(self, peers, Py_ssize_t most) except -1:
        """End the peers that have been silent for longest, until there is room for one more."""
        cdef DatagramSession session
        while len(peers) >= most:
            session = next(iter(peers))
            session.hang_up("plugin_too_many_peers")
            session.leave()
        return 0

    cdef int forget(self, const Address* address) except -1:
        """End the session of an address whose DTLS session has ended."""
        cdef DatagramSession session = <DatagramSession>self.by_address.find(address)
        if session is not None:
            session.ended = True
            session.leave()
        return 0

    cdef int drop_stale_timers(self) except -1:
        """Rebuild the timers when most of them are stale, so that forged addresses do not fill them."""
        cdef DatagramSession session
        if len(self.timers) <= 2 * self.count() + STALE_TIMERS_MAX:
            return 0
        kept = []
        for entry in self.timers:
            session = entry[2]
            if session.peers is not None and session.noted_timer == <double>entry[0]:
                kept.append(entry)
        heapify(kept)
        self.timers = kept
        return 0

    cdef bint check(self, double now) except -1:
        """Call the timers that are due, and end silent peers. Return whether there may be more."""
        cdef DatagramSession session
        cdef double due
        cdef int _
        self.now = now
        for _ in range(DUE_PER_CALL):
            if not self.timers or self.timers[0][0] > now:
                break
            due, _key, session = heappop(self.timers)
            if session.peers is None or session.noted_timer != due:
                continue  # it is gone, or has an earlier entry
            session.noted_timer = 0
            if session.timer_at > now:
                session.on_timer_set()
            else:
                session.expire_timer(now)
        return self.end_silent(self.known, now - self.server.idle_timeout) \
            or self.end_silent(self.strangers, now - min(self.server.login_timeout, self.server.idle_timeout)) \
            or (len(self.timers) > 0 and self.timers[0][0] <= now)

    cdef bint end_silent(self, peers, double before) except -1:
        """End the peers from which nothing has come since then. Return whether there may be more."""
        cdef DatagramSession session
        cdef int _
        for _ in range(DUE_PER_CALL):
            session = next(iter(peers), None)
            if session is None or session.last_received >= before:
                return False
            session.hang_up("plugin_idle")
            session.leave()
        return True
