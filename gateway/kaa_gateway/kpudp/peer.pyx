"""A peer of the KP/UDP server: the session of a source address in one epoch.

What lives here: what frames mean, requests and pushes. What does not: datagrams and who becomes a peer (server.pyx),
what is sent and until when (outbox.pyx), and the tables (tables.pyx).

Source: docs/kp-over-udp.md, "States of the server", "Confirmable messages" and "Peers, and their address".
"""

from libc.stdint cimport int64_t
from libc.string cimport memcmp

from kaa_gateway.counters cimport KPUDP
from kaa_gateway.kp.correlation cimport AT_LEAST_ONCE, AT_MOST_ONCE, REQUEST as REQUEST_SERVICE, Service
from kaa_gateway.kp.resource_path cimport append_topic, is_clean
from kaa_gateway.kp.receipts cimport drop_receipt, kept_receipt
from kaa_gateway.kp.session cimport Attachment
from kaa_gateway.kp.uplink cimport BUSY, IGNORED, Message, Outcome
from kaa_gateway.kpudp.tables cimport ANSWERED, NEW, OUTDATED, MessageIdStatus
from kaa_gateway.net.proxy cimport describe_peer
from kaa_gateway.wire.buffer cimport Buffer, slice_of
from kaa_gateway.wire.kpudp cimport (
    ACK, ALIAS_HAS_ANOTHER_PATH, ALIAS_MAX, CONFIRMED_DATA, DATA, DATAGRAM_SIZE_MAX, HEADER_SIZE, MALFORMED,
    PATH_SIZE_MAX, PHRASE_SIZE_MAX, PING, PONG, PUSH, PUSH_OVERHEAD, REQUEST, RESET, RESPONSE, RESPONSE_OVERHEAD,
    UNKNOWN_ALIAS, put_push, put_response,
)

from kaa_gateway.bus import push_receipts

cdef str DELIVERED = push_receipts.DELIVERED
cdef str DROPPED = push_receipts.DROPPED

cdef enum:
    REQUESTS_MAX = 16        # of a peer, whose responses it has not acknowledged
    PUSHES_MAX = 16          # to a peer, not acknowledged
    REFUSED_MAX = 64         # messages of a peer whose refusal is remembered
    CANDIDATES_MAX = 4       # newer epochs at an address that are not proved
    # HTTP statuses
    NOT_FOUND = 404
    CONTENT_TOO_LARGE = 413
    BAD_GATEWAY = 502
    # With the message ID, the token with which Session.acknowledge is called
    DATA_TOKEN = 0x10000
    REQUEST_TOKEN = 0x20000

# Seconds after a change of epoch in which datagrams of the epoch before are dropped.
cdef double OLD_EPOCH = 120.0

cdef bytes TOO_LARGE = b"The response does not fit a datagram"
cdef bytes NOT_KP1 = b"Resource path must be kp1/<application version>/<extension instance>/..."


cdef class Exchange:
    """A request of the device, until it has acknowledged the response."""


cdef class KpudpPeer(Session):
    """The session of one source address in one epoch.

    A peer in another epoch stands beside it as a candidate until it has proved that it receives at the address.
    """

    def __cinit__(self):
        self.window = DuplicateWindow()
        self.exchanges = {}

    def describe(self):
        """Return what an operator may see of it."""
        address = b"" if self.place is None else self.context.core.socket.client_address(&self.place.address)
        return {**Session.describe(self), **describe_peer(address, None)}

    cdef bint is_busy(self) noexcept:
        """Return whether the peer is in the middle of an exchange."""
        return len(self.outbox.unacknowledged) > 0 or len(self.exchanges) > 0

    cdef int drop(self, str reason) except -1:
        """Count a message that was not taken."""
        return self.counters.count("dropped", reason)

    # ------------------------------------------------------------ epochs

    cdef KpudpPeer in_epoch(self, uint8_t epoch):
        """Return the peer of this address in an epoch, or None. Hot path."""
        cdef KpudpPeer candidate
        if self.outbox.epoch == epoch:
            return self
        if self.candidates is not None:
            for candidate in self.candidates:
                if candidate.outbox.epoch == epoch:
                    return candidate
        return None

    cdef int add_candidate(self, KpudpPeer candidate) except -1:
        """Keep a peer in a newer epoch beside this one, until it proves that it receives at the address."""
        cdef KpudpPeer oldest
        if self.candidates is None:
            self.candidates = []
        elif len(self.candidates) >= CANDIDATES_MAX:
            oldest = self.candidates[0]
            oldest.end("kpudp_too_many_peers")
        self.candidates.append(candidate)
        candidate.current = self
        return 0

    cdef int replace_current(self) except -1:
        """Let this candidate be the peer of its address: it has proved its epoch. All others there end."""
        cdef KpudpPeer current = self.current, candidate
        self.previous_epoch = current.outbox.epoch
        self.previous_until = self.context.now + OLD_EPOCH
        for candidate in list(current.candidates):
            if candidate is not self:
                candidate.end("kpudp_new_epoch")
        return current.end("kpudp_new_epoch")

    cdef Place leave_address(self):
        """Leave the peers of an address. Return the place of the peer that succeeds this one there, or None."""
        cdef KpudpPeer current = self.current, successor, candidate
        self.current = None
        if current is not None:
            current.candidates.remove(self)
            return None
        if not self.candidates:
            return None
        successor = self.candidates.pop()
        successor.current = None
        for candidate in self.candidates:
            candidate.current = successor
        successor.candidates = self.candidates
        self.candidates = None
        return successor.place

    # ------------------------------------------------------------ from the device

    cdef int on_frame(self, const Frame* frame) except -1:
        """Handle a well-formed frame, whose slices are borrowed for the call. Hot path."""
        if frame.type <= REQUEST:
            return self.on_message(frame)
        if frame.type == ACK or frame.type == RESET:
            return self.on_acknowledgement(frame)
        if frame.type == PING:
            return self.on_ping(frame)
        if frame.type == PONG:
            return self.on_pong(frame)
        self.drop("kpudp_wrong_direction")
        return self.outbox.send_reset(frame.message_id, MALFORMED)

    cdef int on_message(self, const Frame* frame) except -1:
        """Handle DATA, CONFIRMED DATA or REQUEST. Hot path."""
        cdef Slice path
        cdef MessageIdStatus status = self.window.look_up(frame.message_id)
        if status == OUTDATED:
            return self.drop("kpudp_outdated")
        if status != NEW:
            return self.on_duplicate(frame)
        if not self.resolve(frame, &path):
            return 0
        if self.refused is not None:
            self.refused.pop(frame.message_id, None)  # the refusal of an older message of this ID
        if frame.type == REQUEST:
            self.publish_request(frame, path)
        else:
            self.publish_data(frame, path)
        if not self.place.proved and frame.type != DATA:
            self.outbox.challenge_address()
        return 0

    cdef bint resolve(self, const Frame* frame, Slice* path) except -1:
        """Find the path of a frame, and register its alias. Return False if the device was told why there is none.

        Hot path. The path borrows from the frame, or from the aliases, which do not change within an epoch.
        """
        cdef object known = None if self.aliases is None else self.aliases[frame.alias]
        if frame.path.data == NULL:
            if known is None:
                self.drop("kpudp_unknown_alias")
                self.outbox.send_reset(frame.message_id, UNKNOWN_ALIAS)
                return False
            path[0] = slice_of(<bytes>known)
            return True
        path[0] = frame.path
        if frame.alias == 0:
            return True
        if known is None:
            if self.aliases is None:
                self.aliases = [None] * (ALIAS_MAX + 1)
            self.aliases[frame.alias] = frame.path.data[:frame.path.size]
        elif len(<bytes>known) != frame.path.size \
                or memcmp(<const char*><bytes>known, frame.path.data, <size_t>frame.path.size) != 0:
            self.drop("kpudp_alias_has_another_path")
            self.outbox.send_reset(frame.message_id, ALIAS_HAS_ANOTHER_PATH)
            return False
        return True

    cdef int on_duplicate(self, const Frame* frame) except -1:
        """Answer a duplicate as its original was answered. An original without an answer yet is met with silence."""
        cdef Exchange exchange
        self.drop("kpudp_duplicate")
        if frame.type == DATA:
            return 0
        if self.refused is not None and frame.message_id in self.refused:
            return self.outbox.send_reset(frame.message_id, self.refused[frame.message_id])
        exchange = self.exchanges.get(frame.message_id)
        if exchange is not None and exchange.state == RESPONDED:
            return self.outbox.transmit(self.outbox.unacknowledged[exchange.response_id])
        if self.window.look_up(frame.message_id) == ANSWERED:
            return self.outbox.send_ack(frame.message_id)
        return 0

    cdef int publish_data(self, const Frame* frame, Slice path) except -1:
        """Publish DATA or CONFIRMED DATA. Hot path."""
        cdef Message message
        cdef Outcome outcome
        message.topic = path
        message.payload = frame.payload
        message.service = AT_MOST_ONCE
        message.token = 0
        message.sequence = frame.message_id
        message.timeout = 0
        message.unanswered = False
        message.literal = True
        message.needs_request_id = False
        message.traceparent = Slice(NULL, 0)
        if frame.type == CONFIRMED_DATA:
            message.service = AT_LEAST_ONCE
            message.token = DATA_TOKEN | frame.message_id
        # Remembered before it is published: `fail` may be called for this very message before `publish` returns.
        self.window.add(frame.message_id)
        outcome = self.context.uplink.publish(self, &message)
        if outcome == BUSY:
            self.window.remove(frame.message_id)
            return self.drop("kpudp_busy")
        if outcome == IGNORED and frame.type == CONFIRMED_DATA:
            return self.refuse_data(frame.message_id, NOT_FOUND)
        return 0

    cdef int publish_request(self, const Frame* frame, Slice path) except -1:
        """Publish a REQUEST. Hot path."""
        cdef KpudpContext context = self.context
        cdef Exchange exchange
        cdef Message message
        cdef Outcome outcome
        if frame.message_id in self.exchanges:
            # The window has moved on, but that request still waits, or its response is not acknowledged.
            return self.drop("kpudp_message_id_in_use")
        if len(self.exchanges) >= REQUESTS_MAX:
            return self.drop("kpudp_outstanding_requests")
        if not context.uplink.link.ready:
            return self.drop("kpudp_busy")
        if not self.context.timer.reserve():
            return self.drop("kpudp_unacknowledged")
        exchange = Exchange()
        exchange.peer = self
        exchange.message_id = frame.message_id
        exchange.sequence = (self.requests & 0xFFF) << 16 | frame.message_id
        if not context.pending.add(self, exchange.sequence, context.now):
            self.context.timer.release()
            return self.drop("kpudp_pending_requests")
        self.requests += 1
        self.exchanges[frame.message_id] = exchange
        message.topic = path
        message.payload = frame.payload
        message.service = REQUEST_SERVICE
        message.token = REQUEST_TOKEN | frame.message_id
        message.sequence = exchange.sequence
        message.timeout = <int64_t>(1000 * context.pending.timeout)
        message.unanswered = False
        message.literal = True
        message.needs_request_id = True
        message.traceparent = Slice(NULL, 0)
        self.window.add(frame.message_id)
        outcome = context.uplink.publish(self, &message)
        if outcome == BUSY:
            self.window.remove(frame.message_id)
            del self.exchanges[frame.message_id]
            context.pending.forget(self.key, exchange.sequence)
            self.context.timer.release()
            return self.drop("kpudp_busy")
        if outcome == IGNORED:
            context.pending.forget(self.key, exchange.sequence)
            return self.respond(exchange, NOT_FOUND, slice_of(NOT_KP1), Slice(NULL, 0))
        return 0

    cdef int on_ping(self, const Frame* frame) except -1:
        """Answer PING, and identify the endpoint that its path announces. Duplicates do no harm."""
        cdef Slice path
        if frame.path.data != NULL:
            if not self.resolve(frame, &path):
                return 0
            self.context.uplink.identify(self, path)
        self.outbox.send_pong(frame.message_id, frame.payload)
        return self.outbox.challenge_address()

    cdef int on_pong(self, const Frame* frame) except -1:
        """Handle the answer to our PING: its data proves that the device receives at its address."""
        if self.place.proved:
            return 0
        if not self.outbox.is_proof(frame.message_id, frame.payload):
            return self.drop("kpudp_wrong_proof")
        self.outbox.complete(frame.message_id)
        if self.current is not None:
            self.replace_current()
        self.place.proved = True
        self.context.evict(self.context.peers.requeue(self.place, self.is_busy()))
        self.context.sessions.set_online(self, True)
        return self.outbox.transmit_all()

    cdef int on_acknowledgement(self, const Frame* frame) except -1:
        """Handle ACK or RESET of a RESPONSE or PUSH, or RESET of a PING."""
        cdef Transmission transmission = self.outbox.unacknowledged.get(frame.message_id)
        if transmission is None or (transmission.type == PING and frame.type == ACK):
            return 0
        if frame.type == RESET:
            self.drop("kpudp_reset_by_device")
        if transmission.receipt is not None:
            if frame.type == ACK:
                transmission.receipt.end(DELIVERED, None)
            else:
                transmission.receipt.end(DROPPED, "kpudp_reset_by_device")
        self.outbox.complete(frame.message_id)
        if transmission.type == RESPONSE:
            del self.exchanges[transmission.request_id]
        elif transmission.type == PUSH:
            self.pushes -= 1
        return 0

    # ------------------------------------------------------------ from NATS, and from the gateway itself

    cdef int acknowledge(self, uint32_t token) except -1:
        """Acknowledge a message that NATS has, or reset one that was refused. Hot path."""
        cdef uint16_t message_id = <uint16_t>(token & 0xFFFF)
        cdef Exchange exchange
        if token & REQUEST_TOKEN:
            self.window.mark_answered(message_id)
            exchange = self.exchanges.get(message_id)
            if exchange is not None and exchange.state == PUBLISHED:
                exchange.state = TAKEN
                self.context.taken.append(exchange)
            return 0
        if self.refused is not None and message_id in self.refused:
            return self.outbox.send_reset(message_id, self.refused[message_id])
        self.window.mark_answered(message_id)
        return self.outbox.send_ack(message_id)

    cdef int acknowledge_late(self, Exchange exchange) except -1:
        """Acknowledge a request that was taken a while ago and has no response yet."""
        if self.closed or exchange.state != TAKEN:
            return 0
        return self.outbox.send_ack(exchange.message_id)

    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1:
        cdef Exchange exchange
        cdef bytes phrase  # held for as long as its slice is used
        if self.closed:
            return 0
        if service == AT_LEAST_ONCE:
            return self.refuse_data(<uint16_t>(sequence & 0xFFFF), status)
        if service == REQUEST_SERVICE:
            exchange = self.exchanges.get(sequence & 0xFFFF)
            if exchange is not None and exchange.sequence == sequence and exchange.state != RESPONDED:
                self.context.pending.forget(self.key, exchange.sequence)
                phrase = reason_phrase.encode()
                return self.respond(exchange, status, slice_of(phrase), Slice(NULL, 0))
        return 0

    cdef int refuse_data(self, uint16_t message_id, int status) except -1:
        """Remember why confirmed data was not taken. `acknowledge` tells the device."""
        if self.window.look_up(message_id) == ANSWERED:
            return 0
        if self.refused is None:
            self.refused = {}
        elif len(self.refused) >= REFUSED_MAX:
            oldest = next(iter(self.refused))
            del self.refused[oldest]
            self.window.remove(oldest)
        self.refused[message_id] = status
        return 0

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Send an answer or a push to the device. Return whether it was sent. Hot path."""
        cdef Exchange exchange
        if self.closed:
            return False
        if not delivery.correlated or delivery.service != REQUEST_SERVICE:
            return self.push(delivery, endpoint)
        exchange = self.exchanges.get(delivery.sequence & 0xFFFF)
        if exchange is None or exchange.sequence != delivery.sequence or exchange.state == RESPONDED:
            return False
        self.context.pending.answered(self.key, exchange.sequence)
        self.respond(exchange, delivery.data.status_code, delivery.data.reason_phrase, delivery.data.payload)
        return True

    cdef int respond(self, Exchange exchange, int status, Slice phrase, Slice payload) except -1:
        """Send the response to a request until the device has acknowledged it. Hot path."""
        cdef uint8_t[DATAGRAM_SIZE_MAX] frame
        cdef uint8_t* end
        cdef Transmission transmission
        if phrase.size > PHRASE_SIZE_MAX:
            phrase.size = PHRASE_SIZE_MAX
        if HEADER_SIZE + RESPONSE_OVERHEAD + phrase.size + payload.size > DATAGRAM_SIZE_MAX:
            self.drop("kpudp_response_too_large")
            status, phrase, payload = CONTENT_TOO_LARGE, slice_of(TOO_LARGE), Slice(NULL, 0)
        if not 100 <= status <= 599:
            status = BAD_GATEWAY
        exchange.state = RESPONDED
        exchange.response_id = self.outbox.next_message_id()
        end = put_response(
            frame, exchange.response_id, exchange.message_id, <uint16_t>status, phrase, payload, True
        )
        transmission = self.outbox.send_confirmable(RESPONSE, exchange.response_id, frame[:end - frame])
        transmission.request_id = exchange.message_id
        return 0

    cdef bint push(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Send a push to a device that is known to be there. Return whether it was sent."""
        cdef uint8_t[DATAGRAM_SIZE_MAX] frame
        cdef uint8_t* end
        cdef int status = delivery.data.status_code
        cdef uint16_t message_id
        cdef Transmission transmission
        cdef Slice app_version = delivery.data.app_version_name, token = Slice(NULL, 0), path
        cdef Slice phrase = delivery.data.reason_phrase
        cdef Buffer scratch = self.context.scratch
        cdef Attachment attachment = None if endpoint is None else endpoint.attachment_of(self)
        if not self.place.proved:
            return False
        if attachment is not None:
            if not delivery.correlated and not self.is_latest_of(endpoint):
                return False
            token = slice_of(attachment.token)
            if app_version.data == NULL:
                app_version = slice_of(attachment.app_version)
        elif delivery.data.endpoint_id.data != NULL:
            return False
        if app_version.data == NULL or delivery.data.extension_instance_name.data == NULL:
            return self.refuse_push(delivery, "no_topic")
        scratch.size = 0
        append_topic(
            scratch, app_version, delivery.data.extension_instance_name, token, delivery.data.resource_path, False, 0,
            Slice(NULL, 0),
        )
        path = Slice(scratch.data, scratch.size)
        if path.size > PATH_SIZE_MAX or not is_clean(path):
            return self.refuse_push(delivery, "no_topic")
        phrase.size = min(phrase.size, <Py_ssize_t>PHRASE_SIZE_MAX)
        if HEADER_SIZE + PUSH_OVERHEAD + phrase.size + path.size + delivery.data.payload.size > DATAGRAM_SIZE_MAX:
            return self.refuse_push(delivery, "kpudp_push_too_large")
        if self.pushes >= PUSHES_MAX:
            return self.refuse_push(delivery, "kpudp_outstanding_pushes")
        if not self.context.timer.reserve():
            return self.refuse_push(delivery, "kpudp_unacknowledged")
        self.pushes += 1
        message_id = self.outbox.next_message_id()
        end = put_push(
            frame, message_id, <uint16_t>(status if 100 <= status <= 599 else BAD_GATEWAY), phrase, path,
            delivery.data.payload, True,
        )
        transmission = self.outbox.send_confirmable(PUSH, message_id, frame[:end - frame])
        transmission.receipt = kept_receipt(delivery.receipt)
        self.context.peers.requeue(self.place, True)
        return True

    cdef bint refuse_push(self, const Delivery* delivery, str reason) except -1:
        """Count a push that cannot be sent, and report it if its extension wants to know. Return False."""
        self.drop(reason)
        drop_receipt(delivery.receipt, reason)
        return False

    cdef bint is_latest_of(self, Endpoint endpoint) except -1:
        """Return whether this is the proved peer of an endpoint from which a datagram has come last."""
        for session in endpoint.all_sessions():
            if isinstance(session, KpudpPeer) and (<KpudpPeer>session).place.proved \
                    and (<KpudpPeer>session).place.turn > self.place.turn:
                return False
        return True

    cdef int retransmit(self, Transmission transmission) except -1:
        """Send a message again whose wait is over. The session ends if the peer does not acknowledge it."""
        if self.outbox.retransmit(transmission):
            return 0
        if transmission.receipt is not None:
            transmission.receipt.end(DROPPED, "kpudp_unreachable")
        return self.end("kpudp_unreachable")

    # ------------------------------------------------------------ the end

    cdef int end(self, str reason) except -1:
        """End the session, its exchanges and its messages."""
        cdef Exchange exchange
        if self.closed:
            return 0
        self.counters.count("closed", reason)
        self.counters.connections_closed[<int>KPUDP] += 1
        for exchange in self.exchanges.values():
            if exchange.state != RESPONDED:  # else the place is the response's
                self.context.pending.forget(self.key, exchange.sequence)
                self.context.timer.release()
        self.exchanges = {}
        self.outbox.close()
        self.context.peers.remove(self.place, self.leave_address())
        return self.context.sessions.close(self)
