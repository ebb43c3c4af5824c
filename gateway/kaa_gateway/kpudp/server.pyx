"""The KP/UDP server: it reads datagrams and hands their frames to the peers that sent them.

What lives here: the header, malformed datagrams, and who becomes a peer. What does not: what a frame means (peer.pyx),
and which peer goes when there are too many (tables.pyx).

Source: docs/kp-over-udp.md, version 1.
"""

from kaa_gateway.counters cimport KPUDP, Counters
from kaa_gateway.kp.pending cimport PendingRequests
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.kpudp.outbox cimport Outbox
from kaa_gateway.kpudp.peer cimport Exchange
from kaa_gateway.kpudp.tables cimport Place, Transmission
from kaa_gateway.tick cimport tick_of
from kaa_gateway.wire.kpudp cimport (
    ACK, BAD_TYPE, DATAGRAM_SIZE_MAX, HEADER_SIZE, MAGIC, MALFORMED, PING, PONG, PUSH, REQUEST, RESET, RESET_SIZE,
    RESPONSE, CONFIRMED_DATA, TRUNCATED_HEAD, UNKNOWN_TYPE, UNSUPPORTED_VERSION, VERSION, WELL_FORMED, Frame,
    FrameStatus, put_header, put_reset, read_frame,
)

from kaa_gateway.wire.kpudp import MALFORMED_REASONS

cdef enum:
    CONTENT_TOO_LARGE = 413
    DUE_PER_CALL = 500     # messages and peers of each kind that are handled at once because their time has come
    ANSWERED_SIZE_MIN = 5  # bytes of a datagram without a peer that may be answered by the 7 bytes of RESET


cdef class KpudpServer(DatagramCore):
    """The KP/UDP server of a worker, as the core of a UdpSocket.

    At most `peers` addresses are remembered, for `peer_timeout` seconds after their last datagram. At most
    `unacknowledged` requests, responses and pushes are under way. `ack_timeout` is the wait before the first
    retransmission, in seconds. `pending` holds the requests of this server only.
    """

    def __init__(
        self, loop, Uplink uplink not None, Sessions sessions not None, PendingRequests pending not None,
        Counters counters not None, *, Py_ssize_t peers, double peer_timeout, double ack_timeout,
        Py_ssize_t unacknowledged,
    ):
        cdef KpudpContext context = KpudpContext()
        self.peer_timeout = peer_timeout
        self.peers = PeerTable(peers)
        self.timer = RetransmissionTimer(unacknowledged, ack_timeout, loop.time())
        self.context = context
        context.tick = tick_of(loop)
        context.core = self
        context.uplink = uplink
        context.sessions = sessions
        context.pending = pending
        context.counters = counters
        context.timer = self.timer
        context.peers = self.peers
        context.now = loop.time()

    def begin_drain(self):
        """Take no new messages. Answers are still sent, and their acknowledgements received."""
        self.draining = True

    def unacknowledged(self):
        """Return how many requests, responses and pushes are under way."""
        return self.timer.count

    cdef int receive(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1:
        """Check a datagram and read its frames. Hot path."""
        cdef Counters counters = self.context.counters
        cdef Frame frame
        cdef Py_ssize_t consumed
        cdef KpudpPeer current, peer
        if size < HEADER_SIZE or data[0] >> 4 != MAGIC:
            return counters.count("dropped", "kpudp_not_kpudp")
        peer = current = <KpudpPeer>self.peers.find(source)
        if current is not None and current.outbox.epoch != data[1]:
            peer = current.in_epoch(data[1])
        if peer is not None:
            peer.outbox.received_bytes += <uint64_t>size
        if data[0] & 0x0F != VERSION:
            counters.count("dropped", "kpudp_version")
            if size < ANSWERED_SIZE_MIN:
                return 0
            return self.send_reset(source, peer, data[1], 0, UNSUPPORTED_VERSION)
        if size == HEADER_SIZE:
            return counters.count("dropped", "kpudp_empty")
        if size > DATAGRAM_SIZE_MAX:
            counters.count("dropped", "kpudp_datagram_too_large")
            if read_frame(data + HEADER_SIZE, size - HEADER_SIZE, &frame, &consumed) == WELL_FORMED \
                    and CONFIRMED_DATA <= frame.type <= REQUEST:
                self.send_reset(source, peer, data[1], frame.message_id, CONTENT_TOO_LARGE)
            return 0
        if peer is None and current is not None and current.previous_until > self.context.now \
                and current.previous_epoch == data[1]:
            return counters.count("dropped", "kpudp_old_epoch")
        return self.read_frames(data, size, source, peer, current)

    cdef int read_frames(
        self, const uint8_t* data, Py_ssize_t size, const Address* source, KpudpPeer peer, KpudpPeer current
    ) except -1:
        """Hand the frames of a datagram to their peer, which the first well-formed one may open. Hot path."""
        cdef Counters counters = self.context.counters
        cdef uint8_t epoch = data[1]
        cdef Py_ssize_t at = HEADER_SIZE, consumed = 0
        cdef Frame frame
        cdef FrameStatus status
        while at < size:
            status = read_frame(data + at, size - at, &frame, &consumed)
            if status != WELL_FORMED:
                counters.count("dropped", MALFORMED_REASONS[<int>status])
                if status == TRUNCATED_HEAD or frame.type == ACK or frame.type == PONG or frame.type == RESET:
                    return 0
                self.send_reset(
                    source, peer, epoch, frame.message_id, UNKNOWN_TYPE if status == BAD_TYPE else MALFORMED
                )
                if status != BAD_TYPE:
                    return 0
                at += consumed
                continue
            at += consumed
            if self.draining and (frame.type <= REQUEST or frame.type == PING):
                counters.count("dropped", "kpudp_draining")
                continue
            if peer is None:
                if frame.type == RESPONSE or frame.type == PUSH:
                    counters.count("dropped", "kpudp_wrong_direction")
                    self.send_reset(source, None, epoch, frame.message_id, MALFORMED)
                    continue
                if frame.type > REQUEST and frame.type != PING:
                    counters.count("dropped", "kpudp_unknown_peer")
                    continue
                peer = self.open_peer(source, epoch, current)
                peer.outbox.received_bytes += <uint64_t>size
            peer.on_frame(&frame)
        if peer is not None and not peer.closed:
            self.context.evict(self.peers.touch(peer.place, peer.is_busy(), self.context.now))
        return 0

    cdef KpudpPeer open_peer(self, const Address* source, uint8_t epoch, KpudpPeer current):
        """Open the session of a new peer. `current` is the peer of this address in another epoch, or None."""
        cdef KpudpPeer peer = KpudpPeer()
        cdef Place place = Place()
        cdef object client
        place.peer = peer
        place.address = source[0]
        place.last_received = self.context.now
        peer.counters = self.context.counters
        peer.protocol = KPUDP
        peer.context = self.context
        peer.place = place
        peer.connectionless = True
        peer.outbox = Outbox()
        peer.outbox.context = self.context
        peer.outbox.peer = peer
        peer.outbox.place = place
        peer.outbox.epoch = epoch
        client = self.socket.client_of(source)
        if client is not None:
            peer.set_client(client)
            place.proved = True  # below, a cookie has proved the address
        self.context.sessions.open(peer)
        if place.proved:
            self.context.sessions.set_online(peer, True)
        self.context.counters.connections_opened[<int>KPUDP] += 1
        if current is not None:
            current.add_candidate(peer)
        self.context.evict(self.peers.add(place))
        return peer

    cdef int forget(self, const Address* address) except -1:
        """End the peer at an address whose session below has ended."""
        cdef KpudpPeer peer = <KpudpPeer>self.peers.find(address)
        return 0 if peer is None else peer.end("kpudp_new_epoch")

    cdef int send_reset(
        self, const Address* destination, KpudpPeer peer, uint8_t epoch, uint16_t message_id, uint16_t reason
    ) except -1:
        """Send RESET to a peer, or to the sender of a datagram of at least ANSWERED_SIZE_MIN bytes."""
        cdef uint8_t[HEADER_SIZE + RESET_SIZE] datagram
        if peer is not None:
            return peer.outbox.send_reset(message_id, reason)
        put_reset(put_header(datagram, epoch), message_id, reason)
        return self.socket.send(destination, datagram, sizeof(datagram))

    cdef bint check(self, double now) except -1:
        """Act on time that has passed: late ACKs, retransmissions, deadlines of requests, silent peers."""
        cdef KpudpContext context = self.context
        cdef Exchange exchange
        cdef Transmission transmission
        cdef KpudpPeer peer
        cdef Place place
        cdef bint more
        cdef int _
        context.now = now
        for _ in range(min(len(context.taken), DUE_PER_CALL)):
            exchange = context.taken.popleft()
            exchange.peer.acknowledge_late(exchange)
        for transmission in self.timer.due(now, DUE_PER_CALL):
            if transmission.peer is not None:
                (<KpudpPeer>transmission.peer).retransmit(transmission)
        more = context.pending.expire(now) or context.taken or self.timer.overdue
        for _ in range(DUE_PER_CALL):
            place = self.peers.silent_since(now - self.peer_timeout)
            if place is None:
                return more
            peer = place.peer  # holds the peer, which gives up its place
            peer.end("kpudp_idle")
        return True
