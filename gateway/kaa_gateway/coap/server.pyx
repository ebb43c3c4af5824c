"""The CoAP server: datagrams to the peer that they are from, the table of peers, and what time has passed for.

A peer is a session. Its messages are coap_messages.pyx, its requests coap_peer.pyx; the codec is kaa_gateway.wire.coap.

Source: RFC 7252; RFC 6690 (/.well-known/core).
"""

import random
import secrets
from collections import OrderedDict
from urllib.parse import quote

from libc.math cimport INFINITY

from kaa_gateway.errors import ProtocolError

from kaa_gateway.counters cimport COAP, Counters
from kaa_gateway.kp.pending cimport PendingRequests
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.coap.answered cimport AnsweredRequests
from kaa_gateway.coap.blocks cimport BodyTable
from kaa_gateway.coap.echo cimport EchoValues
from kaa_gateway.coap.exchanges cimport (
    Exchange, ExchangeList, ExchangeTable, RetransmissionTimer, Transmission,
)
from kaa_gateway.coap.messages cimport CoapMessages
from kaa_gateway.coap.request cimport Request, read_request
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport (
    ACK, BAD_TOKEN_LENGTH, CON, EMPTY, RST, WELL_FORMED, append_header, read_header,
)

from kaa_gateway.wire.coap import FORMAT_REASONS

cdef enum:
    EVICTION_SCAN = 64            # peers looked at for an idle one
    LINKS_MAX = 1024              # of /.well-known/core
    BODIES_PER_PEER = 4           # blockwise transfers each way
    AMPLIFICATION_MAX = 3         # bytes sent for a byte received, to an address that is not proved
    SECRET_SIZE = 16              # bytes
    CLASS_OF_REQUESTS = 0
    SEQUENCES_PER_SECOND = 1024   # of Observe

# Seconds of silence after which nothing that a peer has sent is of use (EXCHANGE_LIFETIME).
cdef double PEER_IDLE = 247.0
# Seconds for which a peer that observes may be silent; RFC 7641 section 4.5 has it heard once a day.
cdef double OBSERVER_SILENCE = 86400.0
# Seconds between two blocks of a transfer: a client may still retransmit until then (MAX_TRANSMIT_WAIT).
cdef double BODY_LIFETIME = 93.0
# Seconds for which an Echo value may be returned.
cdef double ECHO_LIFETIME = 300.0
# Seconds: the order of the table of peers is no more exact.
cdef double HEARD_RESOLUTION = 1.0


def links_of(app_versions):
    """The body of /.well-known/core: a link for each extension instance of each application version (RFC 6690)."""
    names = sorted((version, extension) for version, allowed in app_versions.items() for extension in allowed)
    return ",".join(
        f"</kp1/{quote(version)}/{quote(extension)}>;ct=50" for version, extension in names[:LINKS_MAX]
    ).encode()


cdef class CoapServer(DatagramCore):
    """One worker's CoAP server. `app_versions` maps application versions to their extension instances; times are in
    seconds, sizes in bytes."""

    def __init__(
        self, Uplink uplink not None, Sessions sessions not None, Counters counters not None, app_versions, *,
        double piggyback_delay, double response_timeout, double ack_timeout, Py_ssize_t pending_requests,
        Py_ssize_t max_body_size, Py_ssize_t block_memory, Py_ssize_t peers, Py_ssize_t exchanges,
        Py_ssize_t exchanges_per_peer, Py_ssize_t outstanding_per_peer, Py_ssize_t observers,
        Py_ssize_t observers_per_peer, double requests_per_second, bint require_echo, double now,
    ):
        cdef CoapShared shared = CoapShared()
        self.shared = shared
        self.peers_max = peers
        self.peers = AddressTable()
        self.silence = OrderedDict()
        shared.core = self
        shared.uplink = uplink
        shared.sessions = sessions
        shared.counters = counters
        shared.pending = PendingRequests(pending_requests, response_timeout)
        shared.echo = EchoValues(secrets.token_bytes(SECRET_SIZE), ECHO_LIFETIME)
        shared.links = links_of(app_versions)
        shared.piggyback_delay = piggyback_delay
        shared.ack_timeout = ack_timeout
        shared.body_size_max = max_body_size
        shared.exchanges_per_peer = exchanges_per_peer
        # Room must be left for a request that is answered and may come again.
        shared.outstanding_per_peer = min(outstanding_per_peer, exchanges_per_peer - 1)
        shared.observers_max = observers
        shared.observers_per_peer = observers_per_peer
        shared.requests_per_second = requests_per_second
        shared.require_echo = require_echo
        shared.spare = []
        shared.waiting = ExchangeList()
        shared.answered = AnsweredRequests(exchanges)
        shared.timer = RetransmissionTimer(now)
        shared.requests = BodyTable(block_memory, BODIES_PER_PEER, BODY_LIFETIME)
        shared.responses = BodyTable(block_memory, BODIES_PER_PEER, BODY_LIFETIME)
        shared.now = now
        shared.path = Buffer()
        shared.out = Buffer()

    @property
    def pending(self):
        """The requests that wait for their answers."""
        return self.shared.pending

    def list_links(self, app_versions):
        """Answer requests for /.well-known/core by another configuration."""
        self.shared.links = links_of(app_versions)

    def begin_drain(self):
        """Answer further requests with 5.03; duplicates and what is pending as before."""
        self.shared.draining = True

    def table_sizes(self):
        """{table: entries}, and of the block tables also their bytes, by `..._bytes`."""
        cdef CoapShared shared = self.shared
        return {
            "peers": self.peers.count,
            "waiting": shared.waiting.count,
            "answered": shared.answered.count,
            "transmissions": shared.timer.count,
            "observers": shared.observer_count,
            "requests": len(shared.requests),
            "requests_bytes": shared.requests.bytes,
            "responses": len(shared.responses),
            "responses_bytes": shared.responses.bytes,
        }

    # ------------------------------------------------------------ datagrams

    cdef int receive(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1:
        """Hot path."""
        cdef MessageView view
        cdef Request request
        cdef Format format = read_header(data, size, &view)
        cdef bint is_request = format == WELL_FORMED and view.code != EMPTY and view.code >> 5 == CLASS_OF_REQUESTS \
            and view.type != ACK and view.type != RST
        cdef double now
        cdef CoapPeer peer
        if is_request:
            format = read_request(&view, self.shared.path, &request)
        if format != WELL_FORMED:
            return self.reject(source, &view, format)
        now = self.shared.now = self.socket.now
        if not is_request and view.code != EMPTY:
            # We ask for nothing, so no response is expected; classes 1, 6 and 7 are reserved.
            self.shared.counters.count("dropped", "coap_unexpected_message")
            return self.send_reset(source, &view) if view.type == CON else 0
        if view.code == EMPTY and view.type == CON:
            return self.send_reset(source, &view)  # a ping (RFC 7252 section 4.3)
        peer = self.find_peer(source, is_request, now)
        if peer is None:
            return 0
        peer.allowance += AMPLIFICATION_MAX * size
        if is_request:
            if not peer.may_request(now):
                return self.shared.counters.count("dropped", "coap_rate_limit")
            return peer.on_request(&view, &request, now)
        if view.type == ACK:
            return peer.on_acknowledgement(view.message_id, now)
        if view.type == RST:
            return peer.on_reset(view.message_id)
        return 0

    cdef int reject(self, const Address* source, const MessageView* view, Format format) except -1:
        """A malformed message: Reset for a confirmable one whose header could be read, silence else (4.2, 4.3)."""
        if format >= BAD_TOKEN_LENGTH and view.type == CON:
            self.send_reset(source, view)
        raise ProtocolError(FORMAT_REASONS[<int>format])

    cdef int send_reset(self, const Address* source, const MessageView* view) except -1:
        """A Reset is no longer than any message, so any source may be sent one."""
        cdef Buffer out = self.shared.out
        out.size = 0
        append_header(out, RST, EMPTY, view.message_id, Slice(NULL, 0))
        return self.socket.send(source, out.data, out.size)

    # ------------------------------------------------------------ peers

    cdef CoapPeer find_peer(self, const Address* source, bint makes_one, double now):
        """The peer at an address, or a new one; None if there is none, and none can be made. Hot path."""
        cdef CoapShared shared = self.shared
        cdef CoapPeer peer = <CoapPeer>self.peers.find(source)
        cdef object client
        if peer is not None:
            if now - peer.heard > HEARD_RESOLUTION:
                peer.heard = now
                self.silence.move_to_end(peer)
            return peer
        if not makes_one or not self.make_room():
            return None
        peer = CoapPeer()
        peer.counters = shared.counters
        peer.protocol = COAP
        peer.shared = shared
        peer.address = source[0]
        peer.connectionless = True
        peer.exchanges = ExchangeTable()
        peer.transmissions = {}
        peer.observers = {}
        peer.heard = peer.tokens_at = now
        peer.tokens = max(shared.requests_per_second, 1.0)
        peer.next_message_id = random.getrandbits(16)
        # A peer that was forgotten and comes back must not see smaller numbers than before (RFC 7641 section 4.4).
        peer.observe_sequence = <long>(now * SEQUENCES_PER_SECOND) & 0xFFFFFF
        client = self.socket.client_of(source)
        if client is not None:
            peer.principal = client.principal
            peer.tenant = client.tenant
            peer.proved_until = INFINITY
        self.peers.add(source, peer)
        peer.answered.salt = self.peers.hash_of(source)
        self.silence[peer] = None
        shared.sessions.open(peer)
        shared.counters.connections_opened[<int>COAP] += 1
        return peer

    cdef bint make_room(self) except -1:
        """Let the longest silent idle peer go if the table is full; False if none of those looked at is idle."""
        cdef CoapPeer peer
        cdef int _
        if self.peers.count < self.peers_max:
            return True
        for _ in range(min(self.peers.count, <Py_ssize_t>EVICTION_SCAN)):
            peer = next(iter(self.silence))
            if not peer.is_busy():
                self.shared.counters.count("closed", "coap_peers_full")
                self.close_peer(peer)
                return True
            self.silence.move_to_end(peer)  # so that the next newcomer looks further
        self.shared.counters.count("refused", "coap_peers_full")
        return False

    cdef int close_peer(self, CoapPeer peer) except -1:
        self.peers.remove(&peer.address)
        del self.silence[peer]
        peer.close()
        self.shared.counters.connections_closed[<int>COAP] += 1
        return 0

    cdef int forget(self, const Address* address) except -1:
        cdef CoapPeer peer = <CoapPeer>self.peers.find(address)
        return 0 if peer is None else self.close_peer(peer)

    def end_peer(self, CoapPeer peer not None, str reason not None):
        """The client of a peer may not go on."""
        self.shared.counters.count("closed", reason)
        self.socket.disconnect(&peer.address)
        self.forget(&peer.address)

    # ------------------------------------------------------------ time

    cdef int check(self, double now) except -1:
        """What time has passed for."""
        cdef CoapShared shared = self.shared
        cdef Exchange exchange
        cdef Transmission transmission
        shared.now = now
        shared.pending.expire(now)
        while shared.waiting.first is not None and shared.waiting.first.piggyback_deadline <= now:
            exchange = shared.waiting.first
            (<CoapMessages>exchange.peer).acknowledge_early(exchange)
        shared.answered.expire(now)
        for transmission in shared.timer.due(now):
            (<CoapMessages>transmission.peer).retransmit(transmission, now)
        shared.requests.expire(now)
        shared.responses.expire(now)
        return self.expire_peers(now)

    cdef int expire_peers(self, double now) except -1:
        """Forget peers that have been silent for long."""
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
                self.close_peer(peer)
        return 0
