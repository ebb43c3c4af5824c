"""A peer of the KP/UDP server: the session of a source address, with its aliases, duplicates, requests and pushes.

What lives elsewhere: datagrams (kpudp.pyx), sending and sending again (kpudp_outbox.pyx), which peers there are
(kpudp_table.pyx), message IDs seen (kpudp_window.pyx), and the deadlines of requests (kaa_gateway.kp.pending).

Source: docs/kp-over-udp.md, "States of the server".
"""

from libc.stdint cimport int64_t
from libc.string cimport memcmp

from kaa_gateway.counters cimport KPUDP
from kaa_gateway.kp.correlation cimport AT_LEAST_ONCE, AT_MOST_ONCE, REQUEST as REQUEST_SERVICE, Service
from kaa_gateway.kp.resource_path cimport append_topic, is_clean
from kaa_gateway.kp.sessions cimport Attachment
from kaa_gateway.kp.uplink cimport BUSY, IGNORED, Message, Outcome
from kaa_gateway.kpudp.outbox cimport Outgoing
from kaa_gateway.kpudp.window cimport ANSWERED, OUTDATED, UNSEEN, Sighting
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.kpudp cimport (
    ACK, ALIAS_HAS_ANOTHER_PATH, ALIAS_MAX, CONFIRMED_DATA, DATA, DATAGRAM_SIZE_MAX, HEADER_SIZE, MALFORMED,
    PATH_SIZE_MAX, PHRASE_SIZE_MAX, PING, PONG, PUSH, PUSH_OVERHEAD, REQUEST, RESET, RESPONSE, RESPONSE_OVERHEAD,
    UNKNOWN_ALIAS, put_push, put_response,
)

cdef enum:
    REQUESTS_MAX = 16       # of a peer, whose responses it has not acknowledged
    PUSHES_MAX = 16         # to a peer, not acknowledged
    REFUSED_MAX = 64        # messages of a peer whose refusal is remembered; the next older are judged anew
    NOT_FOUND = 404
    CONTENT_TOO_LARGE = 413
    BAD_GATEWAY = 502
    REQUEST_TOKEN = 0x20000  # with the message ID, what Session.acknowledge is called with
    DATA_TOKEN = 0x10000

cdef bytes TOO_LARGE = b"The response does not fit a datagram"
cdef bytes NOT_KP1 = b"Resource path must be kp1/<application version>/<extension instance>/..."


cdef class Shared:
    """What the peers of a worker share."""

    cdef int keep_bound(self, Entry excess) except -1:
        """Forget the peer that the table has no place for."""
        if excess is not None:
            (<KpudpPeer>excess).end("kpudp_too_many_peers")
        return 0


cdef class Exchange:
    """A request of the device, until it has acknowledged the response."""


cdef class KpudpPeer(Correspondent):
    """The session of one source address in one epoch."""

    def __cinit__(self):
        self.window = DuplicateWindow()
        self.exchanges = {}

    cdef bint is_busy(self) noexcept:
        return len(self.unacknowledged) > 0 or len(self.exchanges) > 0

    cdef int drop(self, str reason) except -1:
        return self.counters.count("dropped", reason)

    # ------------------------------------------------------------ from the device

    cdef int take(self, const Frame* frame) except -1:
        """Handle a well-formed frame, whose slices are borrowed for the call. Hot path."""
        if frame.type <= REQUEST:
            return self.on_message(frame)
        if frame.type == ACK or frame.type == RESET:
            return self.on_concluded(frame)
        if frame.type == PING:
            return self.on_ping(frame)
        if frame.type == PONG:
            return self.on_pong(frame)
        self.drop("kpudp_wrong_direction")
        return self.reset(frame.message_id, MALFORMED)

    cdef int on_message(self, const Frame* frame) except -1:
        """DATA, CONFIRMED DATA or REQUEST. Hot path."""
        cdef Slice path
        cdef Sighting sighting = self.window.look(frame.message_id)
        if sighting == OUTDATED:
            return self.drop("kpudp_outdated")
        if sighting != UNSEEN:
            return self.on_duplicate(frame)
        if not self.resolve(frame, &path):
            return 0
        if self.refused is not None:
            self.refused.pop(frame.message_id, None)  # what an older message of this ID was told
        if frame.type == REQUEST:
            self.publish_request(frame, path)
        else:
            self.publish_data(frame, path)
        if not self.proved and frame.type != DATA:
            self.ask_for_proof()
        return 0

    cdef bint resolve(self, const Frame* frame, Slice* path) except -1:
        """The path of a frame, whose alias it may register; False if the device was told why there is none.

        Hot path. The path borrows from the frame, or from the aliases, which do not change within an epoch.
        """
        cdef object known = None if self.aliases is None else self.aliases[frame.alias]
        if frame.path.data == NULL:
            if known is None:
                self.drop("kpudp_unknown_alias")
                self.reset(frame.message_id, UNKNOWN_ALIAS)
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
            self.reset(frame.message_id, ALIAS_HAS_ANOTHER_PATH)
            return False
        return True

    cdef int on_duplicate(self, const Frame* frame) except -1:
        """Answer a message as the first time, or by silence if that is still to come."""
        cdef Exchange exchange
        self.drop("kpudp_duplicate")
        if frame.type == DATA:
            return 0
        if self.refused is not None and frame.message_id in self.refused:
            return self.reset(frame.message_id, self.refused[frame.message_id])
        exchange = self.exchanges.get(frame.message_id)
        if exchange is not None and exchange.state == RESPONDED:
            return self.transmit(self.unacknowledged[exchange.response_id])
        if self.window.look(frame.message_id) == ANSWERED:
            return self.acknowledge_message(frame.message_id)
        return 0

    cdef int publish_data(self, const Frame* frame, Slice path) except -1:
        """Hot path."""
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
        if frame.type == CONFIRMED_DATA:
            message.service = AT_LEAST_ONCE
            message.token = DATA_TOKEN | frame.message_id
        # Seen before it is published: the session may be told to fail this very message before publish returns.
        self.window.see(frame.message_id)
        outcome = self.shared.uplink.publish(self, &message)
        if outcome == BUSY:
            self.window.forget(frame.message_id)
            return self.drop("kpudp_busy")
        if outcome == IGNORED and frame.type == CONFIRMED_DATA:
            return self.refuse_data(frame.message_id, NOT_FOUND)
        return 0

    cdef int publish_request(self, const Frame* frame, Slice path) except -1:
        """Hot path."""
        cdef Shared shared = self.shared
        cdef Exchange exchange
        cdef Message message
        cdef Outcome outcome
        if frame.message_id in self.exchanges:
            # The window has moved on since, but that one still waits, or its response is not acknowledged.
            return self.drop("kpudp_message_id_in_use")
        if len(self.exchanges) >= REQUESTS_MAX:
            return self.drop("kpudp_outstanding_requests")
        if not shared.uplink.link.ready:
            return self.drop("kpudp_busy")
        if not self.outbox.reserve():
            return self.drop("kpudp_unacknowledged")
        exchange = Exchange()
        exchange.peer = self
        exchange.message_id = frame.message_id
        exchange.sequence = (self.requests & 0xFFF) << 16 | frame.message_id
        if not shared.pending.add(self, exchange.sequence, shared.now):
            self.outbox.release()
            return self.drop("kpudp_pending_requests")
        self.requests += 1
        self.exchanges[frame.message_id] = exchange
        message.topic = path
        message.payload = frame.payload
        message.service = REQUEST_SERVICE
        message.token = REQUEST_TOKEN | frame.message_id
        message.sequence = exchange.sequence
        message.timeout = <int64_t>(1000 * shared.pending.timeout)
        message.unanswered = False
        message.literal = True
        self.window.see(frame.message_id)
        outcome = shared.uplink.publish(self, &message)
        if outcome == BUSY:
            self.window.forget(frame.message_id)
            del self.exchanges[frame.message_id]
            shared.pending.forget(self.key, exchange.sequence)
            self.outbox.release()
            return self.drop("kpudp_busy")
        if outcome == IGNORED:
            shared.pending.forget(self.key, exchange.sequence)
            return self.respond(exchange, NOT_FOUND, slice_of(NOT_KP1), Slice(NULL, 0))
        return 0

    cdef int on_ping(self, const Frame* frame) except -1:
        """PING, and the announcement of an endpoint by its path. It has no effect that a second one would repeat."""
        cdef Slice path
        if frame.path.data != NULL:
            if not self.resolve(frame, &path):
                return 0
            self.shared.uplink.identify(self, path)
        self.pong(frame.message_id, frame.payload)
        return self.ask_for_proof()

    cdef int on_pong(self, const Frame* frame) except -1:
        """The answer to our PING: the device is where it says that it is."""
        cdef Outgoing outgoing
        if self.proved:
            return 0
        if not self.check_proof(frame.message_id, frame.payload):
            return self.drop("kpudp_wrong_proof")
        self.shared.keep_bound(self.shared.table.place(self))
        self.shared.sessions.set_online(self, True)
        # What the limit has held back.
        for outgoing in self.unacknowledged.values():
            self.transmit(outgoing)
        return 0

    cdef int on_concluded(self, const Frame* frame) except -1:
        """ACK or RESET of a RESPONSE, a PUSH, or a PING that the device does not know."""
        cdef Outgoing outgoing = self.unacknowledged.get(frame.message_id)
        if outgoing is None or (outgoing.type == PING and frame.type == ACK):
            return 0
        if frame.type == RESET:
            self.drop("kpudp_reset_by_device")
        self.conclude(frame.message_id)
        if outgoing.type == RESPONSE:
            del self.exchanges[outgoing.request_id]
        elif outgoing.type == PUSH:
            self.pushes -= 1
        return 0

    # ------------------------------------------------------------ from NATS, and from the gateway itself

    cdef int acknowledge(self, uint32_t token) except -1:
        """NATS has a message, or its refusal takes its turn. Hot path."""
        cdef uint16_t message_id = <uint16_t>(token & 0xFFFF)
        cdef Exchange exchange
        if token & REQUEST_TOKEN:
            self.window.answer(message_id)
            exchange = self.exchanges.get(message_id)
            if exchange is not None and exchange.state == PUBLISHED:
                exchange.state = TAKEN
                self.shared.taken.append(exchange)
            return 0
        if self.refused is not None and message_id in self.refused:
            return self.reset(message_id, self.refused[message_id])
        self.window.answer(message_id)
        return self.acknowledge_message(message_id)

    cdef int send_late_ack(self, Exchange exchange) except -1:
        """A request was taken a while ago, and its response has not come."""
        if self.closed or exchange.state != TAKEN:
            return 0
        return self.acknowledge_message(exchange.message_id)

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
                self.shared.pending.forget(self.key, exchange.sequence)
                phrase = reason_phrase.encode()
                return self.respond(exchange, status, slice_of(phrase), Slice(NULL, 0))
        return 0

    cdef int refuse_data(self, uint16_t message_id, int status) except -1:
        """Remember why confirmed data was not taken; `acknowledge` tells the device."""
        if self.window.look(message_id) == ANSWERED:
            return 0
        if self.refused is None:
            self.refused = {}
        elif len(self.refused) >= REFUSED_MAX:
            oldest = next(iter(self.refused))
            del self.refused[oldest]
            self.window.forget(oldest)
        self.refused[message_id] = status
        return 0

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Hot path."""
        cdef Exchange exchange
        if self.closed:
            return False
        if not delivery.correlated or delivery.service != REQUEST_SERVICE:
            return self.push(delivery, endpoint)
        exchange = self.exchanges.get(delivery.sequence & 0xFFFF)
        if exchange is None or exchange.sequence != delivery.sequence or exchange.state == RESPONDED:
            return False
        self.shared.pending.answered(self.key, exchange.sequence)
        self.respond(exchange, delivery.data.status_code, delivery.data.reason_phrase, delivery.data.payload)
        return True

    cdef int respond(self, Exchange exchange, int status, Slice phrase, Slice payload) except -1:
        """Answer a request, and again until the device has acknowledged it. Hot path."""
        cdef uint8_t[DATAGRAM_SIZE_MAX] frame
        cdef uint8_t* end
        cdef Outgoing outgoing
        if phrase.size > PHRASE_SIZE_MAX:
            phrase.size = PHRASE_SIZE_MAX
        if HEADER_SIZE + RESPONSE_OVERHEAD + phrase.size + payload.size > DATAGRAM_SIZE_MAX:
            self.drop("kpudp_response_too_large")
            status, phrase, payload = CONTENT_TOO_LARGE, slice_of(TOO_LARGE), Slice(NULL, 0)
        if not 100 <= status <= 599:
            status = BAD_GATEWAY
        exchange.state = RESPONDED
        exchange.response_id = self.next_message_id()
        end = put_response(
            frame, exchange.response_id, exchange.message_id, <uint16_t>status, phrase, payload, True
        )
        outgoing = self.begin(RESPONSE, exchange.response_id, frame[:end - frame])
        outgoing.request_id = exchange.message_id
        return 0

    cdef bint push(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Send what the device has not asked for, if it is known to be there; whether it was sent."""
        cdef uint8_t[DATAGRAM_SIZE_MAX] frame
        cdef uint8_t* end
        cdef int status = delivery.data.status_code
        cdef uint16_t message_id
        cdef Slice app_version = delivery.data.app_version_name, token = Slice(NULL, 0), path
        cdef Slice phrase = delivery.data.reason_phrase
        cdef Buffer scratch = self.shared.scratch
        cdef Attachment attachment = None if endpoint is None else endpoint.sessions.get(self)
        if not self.proved:
            return False
        if attachment is not None:
            if not delivery.correlated and not self.is_heard_last(endpoint):
                return False
            token = slice_of(attachment.token)
            if app_version.data == NULL:
                app_version = slice_of(attachment.app_version)
        elif delivery.data.endpoint_id.data != NULL:
            return False
        if app_version.data == NULL or delivery.data.extension_instance_name.data == NULL:
            self.drop("no_topic")
            return False
        scratch.size = 0
        append_topic(
            scratch, app_version, delivery.data.extension_instance_name, token, delivery.data.resource_path, False, 0,
            Slice(NULL, 0),
        )
        path = Slice(scratch.data, scratch.size)
        if path.size > PATH_SIZE_MAX or not is_clean(path):
            self.drop("no_topic")
            return False
        phrase.size = min(phrase.size, <Py_ssize_t>PHRASE_SIZE_MAX)
        if HEADER_SIZE + PUSH_OVERHEAD + phrase.size + path.size + delivery.data.payload.size > DATAGRAM_SIZE_MAX:
            self.drop("kpudp_push_too_large")
            return False
        if self.pushes >= PUSHES_MAX:
            self.drop("kpudp_outstanding_pushes")
            return False
        if not self.outbox.reserve():
            self.drop("kpudp_unacknowledged")
            return False
        self.pushes += 1
        message_id = self.next_message_id()
        end = put_push(
            frame, message_id, <uint16_t>(status if 100 <= status <= 599 else BAD_GATEWAY), phrase, path,
            delivery.data.payload, True,
        )
        self.begin(PUSH, message_id, frame[:end - frame])
        self.shared.table.place(self)
        return True

    cdef bint is_heard_last(self, Endpoint endpoint) except -1:
        """Whether no other proved peer that speaks for an endpoint was heard after this one."""
        for session in endpoint.sessions:
            if isinstance(session, KpudpPeer) and (<KpudpPeer>session).proved \
                    and (<KpudpPeer>session).turn > self.turn:
                return False
        return True

    # ------------------------------------------------------------ the end

    cdef int give_up(self, Outgoing outgoing) except -1:
        """A device that lets us send in vain is gone; one that does not answer PING may just not listen."""
        if outgoing.type == PING:
            self.conclude(outgoing.message_id)
            return 0
        return self.end("kpudp_unreachable")

    cdef int end(self, str reason) except -1:
        """Forget the peer and all that concerns it."""
        cdef Exchange exchange
        if self.closed:
            return 0
        self.counters.count("closed", reason)
        self.counters.connections_closed[<int>KPUDP] += 1
        for exchange in self.exchanges.values():
            if exchange.state != RESPONDED:  # else the place is the response's
                self.shared.pending.forget(self.key, exchange.sequence)
                self.outbox.release()
        self.exchanges = {}
        self.abandon_all()
        self.shared.table.remove(self)
        return self.shared.sessions.close(self)
