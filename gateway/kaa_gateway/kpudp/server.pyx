"""The KP/UDP server: datagrams to frames, frames to the peers whose they are.

What a frame does is the peer's (kpudp_peer.pyx); here is what comes before one is known: the header, what is
malformed, and who becomes a peer.

Source: docs/kp-over-udp.md, version 1.
"""

from kaa_gateway.counters cimport KPUDP, Counters
from kaa_gateway.kp.pending cimport PendingRequests
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.kpudp.peer cimport Exchange
from kaa_gateway.wire.buffer cimport Buffer
from kaa_gateway.wire.kpudp cimport (
    ACK, BAD_TYPE, DATAGRAM_SIZE_MAX, HEADER_SIZE, MAGIC, MALFORMED, PING, PONG, PUSH, REQUEST, RESET, RESET_SIZE,
    RESPONSE, CONFIRMED_DATA, TRUNCATED_HEAD, UNKNOWN_TYPE, UNSUPPORTED_VERSION, VERSION, WELL_FORMED, Frame,
    FrameStatus, put_header, put_reset, read_frame,
)

from kaa_gateway.wire.kpudp import MALFORMED_REASONS

cdef enum:
    CONTENT_TOO_LARGE = 413
    ANSWERED_SIZE_MIN = 5  # bytes of a datagram that may be answered by a RESET of 7 without a peer

# Seconds after a change of epoch in which datagrams of the one before are dropped.
cdef double OLD_EPOCH = 120.0


cdef class KpudpServer(DatagramCore):
    """The KP/UDP of a worker, as the core of a UdpSocket.

    At most `peers` addresses are remembered, for `peer_timeout` seconds after their last datagram. At most
    `unacknowledged` requests, responses and pushes are under way; `ack_timeout` is the wait before the first
    retransmission, in seconds. `pending` is this transport's own.
    """

    def __init__(
        self, loop, Uplink uplink not None, Sessions sessions not None, PendingRequests pending not None,
        Counters counters not None, *, Py_ssize_t peers, double peer_timeout, double ack_timeout,
        Py_ssize_t unacknowledged,
    ):
        cdef Shared shared = Shared()
        self.loop = loop
        self.peer_timeout = peer_timeout
        self.peers = Table(peers)
        self.outbox = Outbox(loop, self, counters, unacknowledged, ack_timeout)
        self.shared = shared
        shared.uplink = uplink
        shared.sessions = sessions
        shared.pending = pending
        shared.counters = counters
        shared.outbox = self.outbox
        shared.table = self.peers
        shared.now = loop.time()
        shared.taken = []
        shared.scratch = Buffer()

    def begin_drain(self):
        """Take no new messages; answers still go out, and their acknowledgements come in."""
        self.draining = True

    def unacknowledged(self):
        """Requests, responses and pushes under way."""
        return self.outbox.count

    cdef int receive(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1:
        """Take a datagram. Hot path."""
        cdef Counters counters = self.shared.counters
        cdef Frame frame
        cdef Py_ssize_t consumed
        cdef KpudpPeer peer
        if size < HEADER_SIZE or data[0] >> 4 != MAGIC:
            return counters.count("dropped", "kpudp_not_kpudp")
        peer = <KpudpPeer>self.peers.find(source)
        if peer is not None and peer.epoch == data[1]:
            peer.received_bytes += <uint64_t>size
        if data[0] & 0x0F != VERSION:
            counters.count("dropped", "kpudp_version")
            if size < ANSWERED_SIZE_MIN:
                return 0
            return self.answer_reset(source, peer, data[1], 0, UNSUPPORTED_VERSION)
        if size == HEADER_SIZE:
            return counters.count("dropped", "kpudp_empty")
        if size > DATAGRAM_SIZE_MAX:
            counters.count("dropped", "kpudp_datagram_too_large")
            if read_frame(data + HEADER_SIZE, size - HEADER_SIZE, &frame, &consumed) == WELL_FORMED \
                    and CONFIRMED_DATA <= frame.type <= REQUEST:
                self.answer_reset(source, peer, data[1], frame.message_id, CONTENT_TOO_LARGE)
            return 0
        if peer is not None and peer.epoch != data[1] and peer.previous_until > self.shared.now \
                and peer.previous_epoch == data[1]:
            return counters.count("dropped", "kpudp_old_epoch")
        return self.take_frames(data, size, source, peer)

    cdef int take_frames(
        self, const uint8_t* data, Py_ssize_t size, const Address* source, KpudpPeer known
    ) except -1:
        """Hand the frames of a datagram to their peer, which the first good one may make. Hot path."""
        cdef Counters counters = self.shared.counters
        cdef uint8_t epoch = data[1]
        cdef KpudpPeer peer = known if known is not None and known.epoch == epoch else None
        cdef Py_ssize_t at = HEADER_SIZE, consumed = 0
        cdef Frame frame
        cdef FrameStatus status
        while at < size:
            status = read_frame(data + at, size - at, &frame, &consumed)
            if status != WELL_FORMED:
                counters.count("dropped", MALFORMED_REASONS[<int>status])
                if status == TRUNCATED_HEAD or frame.type == ACK or frame.type == PONG or frame.type == RESET:
                    return 0
                self.answer_reset(
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
                    self.answer_reset(source, None, epoch, frame.message_id, MALFORMED)
                    continue
                if frame.type > REQUEST and frame.type != PING:
                    counters.count("dropped", "kpudp_unknown_peer")
                    continue
                peer = self.admit(source, epoch, known)
                peer.received_bytes += <uint64_t>size
            peer.take(&frame)
        if peer is not None and not peer.closed:
            self.shared.keep_bound(self.peers.hear(peer, self.shared.now))
        return 0

    cdef KpudpPeer admit(self, const Address* source, uint8_t epoch, KpudpPeer former):
        """A new peer; `former` is that of the same address in another epoch, which ends."""
        cdef KpudpPeer peer = KpudpPeer()
        peer.counters = self.shared.counters
        peer.protocol = KPUDP
        peer.shared = self.shared
        peer.outbox = self.outbox
        peer.address = source[0]
        peer.connectionless = True
        peer.epoch = epoch
        self.shared.sessions.open(peer)
        self.shared.counters.connections_opened[<int>KPUDP] += 1
        if former is not None:
            peer.proved = former.proved
            peer.received_bytes = former.received_bytes
            peer.sent_bytes = former.sent_bytes
            peer.previous_epoch = former.epoch
            peer.previous_until = self.shared.now + OLD_EPOCH
            former.end("kpudp_new_epoch")
        peer.heard = self.shared.now
        self.shared.keep_bound(self.peers.add(peer))
        if peer.proved:
            self.shared.sessions.set_online(peer, True)
        return peer

    cdef int answer_reset(
        self, const Address* destination, KpudpPeer peer, uint8_t epoch, uint16_t message_id, uint16_t reason
    ) except -1:
        """RESET, to a peer within its limit, or to whoever sent a datagram of ANSWERED_SIZE_MIN bytes or more."""
        cdef uint8_t[HEADER_SIZE + RESET_SIZE] datagram
        if peer is not None:
            return peer.reset(message_id, reason)
        put_reset(put_header(datagram, epoch), message_id, reason)
        return self.socket.send(destination, datagram, sizeof(datagram))

    cdef int check(self, double now) except -1:
        """Act on time that has passed: late ACKs, retransmissions, deadlines of requests, silent peers."""
        cdef Shared shared = self.shared
        cdef Exchange exchange
        cdef KpudpPeer peer
        shared.now = now
        taken = shared.taken
        shared.taken = []
        for exchange in taken:
            exchange.peer.send_late_ack(exchange)
        self.outbox.check(now)
        shared.pending.expire(now)
        while True:
            peer = <KpudpPeer>self.peers.overdue(now - self.peer_timeout)
            if peer is None:
                return 0
            peer.end("kpudp_idle")
