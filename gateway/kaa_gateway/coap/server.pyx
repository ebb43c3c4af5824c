"""The CoAP server: it hands datagrams to the peers they come from, keeps the table of peers, and acts on time.

A peer is a session (peer.pyx). The codec is kaa_gateway.wire.coap.

Source: RFC 7252; RFC 6690 (/.well-known/core).
"""

import random
from collections import OrderedDict

from libc.math cimport INFINITY

from kaa_gateway.errors import ProtocolError

from kaa_gateway.coap.acknowledgements cimport receive_acknowledgement, receive_reset, retransmit, send_held
from kaa_gateway.coap.ending cimport end_observations, end_unserved, end_waits, expire_waits
from kaa_gateway.coap.exchanges cimport KEPT_TOKEN_MAX, Exchange
from kaa_gateway.coap.options cimport Request, read_request
from kaa_gateway.coap.outbox cimport Outbox
from kaa_gateway.coap.peer cimport new_peer
from kaa_gateway.coap.retransmission cimport Transmission
from kaa_gateway.counters cimport COAP, Counters
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport (
    ACK, BAD_REQUEST, BAD_TOKEN_LENGTH, CON, EMPTY, NON, RST, SERVICE_UNAVAILABLE, WELL_FORMED,
    append_header, read_header,
)

from kaa_gateway.wire.coap import FORMAT_REASONS

cdef enum:
    EVICTION_SCAN = 64            # peers looked at for an idle one
    DUE_PER_CALL = 500            # messages of each kind that are sent at once because they are due
    AMPLIFICATION_MAX = 3         # bytes sent for a byte received, to an address that is not verified
    CLASS_OF_REQUESTS = 0
    SEQUENCES_PER_SECOND = 1024   # of Observe

# Seconds of silence after which nothing that a peer has sent is of use (EXCHANGE_LIFETIME).
cdef double PEER_IDLE = 247.0
# Seconds for which a peer that observes may be silent; RFC 7641 section 4.5 asks for one confirmable message a day.
cdef double OBSERVER_SILENCE = 86400.0
# Seconds: the order of the table of peers is no more exact.
cdef double HEARD_RESOLUTION = 1.0


cdef class CoapServer(DatagramCore):
    """The CoAP server of one worker and port. `app_versions` maps application versions to their extension instances.

    Times are in seconds, sizes in bytes.
    """

    def __init__(
        self, Uplink uplink not None, Sessions sessions not None, Counters counters not None, app_versions, *,
        double piggyback_delay, double response_timeout, double ack_timeout, Py_ssize_t pending_requests,
        Py_ssize_t max_body_size, Py_ssize_t block_memory, Py_ssize_t transfers_per_peer, Py_ssize_t peers,
        Py_ssize_t exchanges,
        Py_ssize_t exchanges_per_peer, Py_ssize_t outstanding_per_peer, Py_ssize_t observers,
        Py_ssize_t observers_per_peer, double max_wait, double requests_per_second, bint require_echo, double now,
    ):
        cdef CoapContext context = CoapContext(
            uplink, sessions, counters, app_versions, piggyback_delay=piggyback_delay,
            response_timeout=response_timeout, ack_timeout=ack_timeout, pending_requests=pending_requests,
            max_body_size=max_body_size, block_memory=block_memory, transfers_per_peer=transfers_per_peer,
            exchanges=exchanges, exchanges_per_peer=exchanges_per_peer, outstanding_per_peer=outstanding_per_peer,
            observers=observers, observers_per_peer=observers_per_peer, max_wait=max_wait,
            requests_per_second=requests_per_second, require_echo=require_echo, now=now,
        )
        self.context = context
        self.peers_max = peers
        self.peers = AddressTable()
        self.silence = OrderedDict()
        context.core = self

    @property
    def pending(self):
        """The requests that wait for their answers."""
        return self.context.pending

    def list_links(self, app_versions):
        """Answer requests for /.well-known/core by another configuration."""
        self.context.set_links(app_versions)

    def answer_multicast(self, double leisure):
        """Answer discovery by multicast from now on, each time after up to `leisure` seconds."""
        self.multicast = MulticastDiscovery(self.context, leisure)

    def begin_drain(self):
        """Answer further requests with 5.03; duplicates and pending requests are answered as before.

        Observers get a last notification with 5.03, after which they may register elsewhere. Requests that wait for a
        push get 2.03.
        """
        self.context.draining = True
        self.end_some_observations()
        self.end_some_waits()

    def end_some_observations(self):
        """End observations because the server drains, a slice at a time."""
        if end_observations(self.context):
            self.socket.loop.call_soon(self.end_some_observations)

    def end_some_waits(self):
        """Answer requests that wait for a push because the server drains, a slice at a time."""
        if end_waits(self.context):
            self.socket.loop.call_soon(self.end_some_waits)

    def has_observers(self):
        """Return whether clients observe or wait for a push."""
        return len(self.context.observations) > 0 or self.context.waiting.count > 0

    def table_sizes(self):
        """Return {table: entries}, and for the block tables also {..._bytes: bytes}."""
        return {"peers": self.peers.count, **self.context.table_sizes()}

    # ------------------------------------------------------------ datagrams

    cdef int receive(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1:
        """Take a datagram, which is borrowed for the call. Hot path."""
        cdef CoapContext context = self.context
        cdef MessageView view
        cdef Request request
        cdef Format format = read_header(data, size, &view)
        cdef bint is_request = format == WELL_FORMED and view.code != EMPTY and view.code >> 5 == CLASS_OF_REQUESTS \
            and view.type != ACK and view.type != RST
        cdef CoapPeer peer
        if self.socket.to_group:
            return 0 if self.multicast is None else self.multicast.receive(data, size, source, self.socket.now)
        if is_request:
            format = read_request(&view, context.path, &request)
            if format == WELL_FORMED and view.token.size > KEPT_TOKEN_MAX:
                return self.refuse_long_token(source, &view)
        if format != WELL_FORMED:
            return self.reject(source, &view, format)
        context.now = self.socket.now
        if not is_request and view.code != EMPTY and view.type != ACK:
            # The server sends no requests, so it expects no responses; classes 1, 6 and 7 are reserved.
            context.counters.count("dropped", "coap_unexpected_message")
            return self.send_reset(source, &view) if view.type == CON else 0
        if view.code == EMPTY and view.type == CON:
            return self.send_reset(source, &view)  # a ping (RFC 7252 section 4.3)
        peer = self.find_peer(source, context.now)
        if peer is None:
            if is_request:
                peer = self.open_peer(source, context.now)
            if peer is None:
                return 0
        peer.outbox.amplification_credit += AMPLIFICATION_MAX * size
        if is_request:
            if not peer.may_request(context.now):
                return context.counters.count("dropped", "coap_rate_limit")
            peer.receive_request(&view, &request, context.now)
        elif view.type == ACK:
            # One with a code acknowledges too: some modems answer a notification with 2.04.
            receive_acknowledgement(peer, view.message_id, context.now)
        elif view.type == RST:
            receive_reset(peer, view.message_id)
        if peer.outbox.holds:
            send_held(peer, context.now)
        return 0

    cdef int reject(self, const Address* source, const MessageView* view, Format format) except -1:
        """Reject a malformed message: with a Reset if it is confirmable and its header was read, else in silence.

        RFC 7252 sections 4.2 and 4.3.
        """
        if format >= BAD_TOKEN_LENGTH and view.type == CON:
            self.send_reset(source, view)
        raise ProtocolError(FORMAT_REASONS[<int>format])

    cdef int send_reset(self, const Address* source, const MessageView* view) except -1:
        """Send a Reset to any source: it is no longer than the message that it answers."""
        cdef Buffer out = self.context.out
        out.size = 0
        append_header(out, RST, EMPTY, view.message_id, Slice(NULL, 0))
        return self.socket.send(source, out.data, out.size)

    cdef int refuse_long_token(self, const Address* source, const MessageView* view) except -1:
        """Refuse a request whose token is longer than we keep: RFC 8974 section 2.2.1 has 4.00 for that.

        The response is no longer than the request, and each duplicate gets it again.
        """
        cdef Buffer out = self.context.out
        self.context.counters.count("refused", "coap_long_token")
        out.size = 0
        append_header(out, ACK if view.type == CON else NON, BAD_REQUEST, view.message_id, view.token)
        return self.socket.send(source, out.data, out.size)

    # ------------------------------------------------------------ peers

    cdef CoapPeer find_peer(self, const Address* source, double now):
        """Return the peer at an address, or None. Hot path."""
        cdef CoapPeer peer = <CoapPeer>self.peers.find(source)
        if peer is not None and now - peer.heard > HEARD_RESOLUTION:
            peer.heard = now
            self.silence.move_to_end(peer)
        return peer

    cdef CoapPeer open_peer(self, const Address* source, double now):
        """Return a new peer at an address that has none, or None if the table is full of busy peers."""
        cdef CoapContext context = self.context
        cdef CoapPeer peer
        cdef object client
        if not self.make_room():
            return None
        peer = new_peer(context, self.new_outbox(source), now)
        # A peer that was forgotten and comes back must not see smaller numbers than before (RFC 7641 section 4.4).
        peer.observer.observe_sequence = <long>(now * SEQUENCES_PER_SECOND) & 0xFFFFFF
        client = self.socket.client_of(source)
        if client is not None:
            peer.set_client(client)
            peer.outbox.verified_until = INFINITY
        self.peers.add(source, peer)
        peer.completed.salt = self.peers.hash_of(source)
        self.silence[peer] = None
        context.sessions.open(peer)
        context.counters.connections_opened[<int>COAP] += 1
        return peer

    cdef Outbox new_outbox(self, const Address* source):
        """Return the outbox of a new peer."""
        cdef Outbox outbox = Outbox()
        outbox.address = source[0]
        outbox.last_message_id = random.getrandbits(16)
        outbox.message_size_max = self.socket.message_size_max(source)
        return outbox

    cdef bint make_room(self) except -1:
        """Close the longest silent idle peer if the table is full. Return False if none of those looked at is idle."""
        cdef CoapPeer peer
        cdef int _
        if self.peers.count < self.peers_max:
            return True
        for _ in range(min(self.peers.count, <Py_ssize_t>EVICTION_SCAN)):
            peer = next(iter(self.silence))
            if not peer.is_busy():
                self.context.counters.count("closed", "coap_peers_full")
                self.close_peer(peer)
                return True
            self.silence.move_to_end(peer)  # so that the next newcomer looks further
        self.context.counters.count("refused", "coap_peers_full")
        return False

    cdef int close_peer(self, CoapPeer peer) except -1:
        """Close a peer and take it out of the table."""
        self.peers.remove(&peer.outbox.address)
        del self.silence[peer]
        peer.close()
        self.context.counters.connections_closed[<int>COAP] += 1
        return 0

    cdef int forget(self, const Address* address) except -1:
        """Close the peer at an address, if there is one: from now on its datagrams come from another client."""
        cdef CoapPeer peer = <CoapPeer>self.peers.find(address)
        return 0 if peer is None else self.close_peer(peer)

    # ------------------------------------------------------------ time

    cdef bint check(self, double now) except -1:
        """Do what is due at `now`: time-outs, acknowledgements, retransmissions, and the end of what has expired."""
        cdef CoapContext context = self.context
        cdef Exchange exchange
        cdef Transmission transmission
        cdef bint more = context.pending.expire(now)
        cdef int _
        context.now = now
        for _ in range(DUE_PER_CALL):
            exchange = context.unacknowledged.first
            if exchange is None or exchange.piggyback_deadline > now:
                break
            (<CoapPeer>exchange.peer).acknowledge_separately(exchange)
        else:
            more = True
        context.completed.expire(now)
        for transmission in context.timer.due(now, DUE_PER_CALL):
            if transmission.peer is not None:
                retransmit(<CoapPeer>transmission.peer, transmission, now)
        more |= expire_waits(context, now)
        end_unserved(context)
        context.expire_bodies(now)
        if self.multicast is not None:
            self.multicast.send_due(now)
        self.expire_peers(now)
        return more or context.timer.overdue

    cdef int expire_peers(self, double now) except -1:
        """Close peers that have been silent for long; a busy one may be silent for longer."""
        cdef CoapPeer peer
        cdef int _
        for _ in range(EVICTION_SCAN):
            if not self.silence:
                return 0
            peer = next(iter(self.silence))
            if now - peer.heard < PEER_IDLE:
                return 0
            if peer.is_busy() and now - peer.heard < OBSERVER_SILENCE:
                self.silence.move_to_end(peer)
            else:
                peer.observer.end_all(SERVICE_UNAVAILABLE)
                self.close_peer(peer)
        return 0
