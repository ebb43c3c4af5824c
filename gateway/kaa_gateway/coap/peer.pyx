"""One peer of the CoAP server: the way of its requests up to the extension, and of responses and notifications down.

The way of a request: `receive_request` finds duplicates, opens an exchange and serves it; `forward` hands the message
to the uplink. The way of its response: `deliver` has the extension's answer, `respond` encodes it, completes the
exchange and sends it. Everything with rules of its own is beside the peer: options.pyx (what messages say),
exchanges.pyx (requests and their duplicates), outbox.pyx (messages to the peer), observer.pyx and blocks.pyx.

Source: RFC 7252 sections 4 and 5; RFC 7641 (Observe); RFC 7959 (blocks); RFC 7967 (No-Response); RFC 9175 (Echo); 1/KP.
"""

from itertools import islice

cimport cython
from libc.stdint cimport int64_t

from kaa_gateway.coap.blocks cimport BLOCKS_MISSING, NO_BLOCK_MEMORY, REPEATED, BlockResult, Body, etag_of
from kaa_gateway.coap.exchanges cimport ACKNOWLEDGED, FORWARDED, RECEIVED, response_of
from kaa_gateway.coap.observations cimport Observation
from kaa_gateway.coap.observer cimport NOTIFICATION_MAX_AGE, Observer
from kaa_gateway.coap.options cimport (
    LINK_FORMAT, NO_FAULT, code_of_status, cut_diagnostic, format_of_payload, is_known_format, queries_of, refusal_for,
    start_response,
)
from kaa_gateway.coap.waiting_request cimport begin_waiting, deliver_to_waiting, end_waiting, expire, prepare_waiting
from kaa_gateway.counters cimport COAP
from kaa_gateway.kp.correlation cimport REQUEST, SEQUENCE_MASK, Service
from kaa_gateway.kp.resource_path cimport is_kp1
from kaa_gateway.kp.session cimport Delivery
from kaa_gateway.kp.uplink cimport BUSY, IGNORED, Message, Outcome
from kaa_gateway.kp.waiting cimport BAD_WAIT
from kaa_gateway.net.addresses cimport address_key
from kaa_gateway.wire.buffer cimport Buffer, slice_of
from kaa_gateway.wire.coap cimport (
    ACK, BAD_OPTION, BAD_REQUEST, BERT, CON, CONTENT, CONTINUE, FETCH, GET, METHOD_NOT_ALLOWED, NON, NOT_ACCEPTABLE,
    NOT_FOUND, POST, PUT, REQUEST_ENTITY_INCOMPLETE, REQUEST_ENTITY_TOO_LARGE, RST, SERVICE_UNAVAILABLE, STREAM,
    TOO_MANY_REQUESTS, UNAUTHORIZED, VALID, Block, Type, block_offset,
)

from kaa_gateway.bus import push_receipts

cdef str DELIVERED = push_receipts.DELIVERED
cdef str DROPPED = push_receipts.DROPPED

cdef enum:
    RETRY_AFTER = 1                 # seconds, in Max-Age of a 5.03
    REGISTER = 0                    # values of Observe in a request (RFC 7641 section 2)
    DEREGISTER = 1
    OK = 200
    TAKEN_TOKEN = 0x10000000        # with the sequence of the exchange, the argument of `acknowledge`
    GENERATION_MASK = 0xFFF         # bits of a sequence above the message ID
    SPARE_EXCHANGES = 1024          # kept for use, at most
    SPARE_KEY_SIZE = 256            # bytes of a transfer key, in each
    ENDED_AT_ONCE = 100             # observations, and waiting requests
    EXPIRED_AT_ONCE = 500           # waiting requests
    VALIDATED_SIZE_MIN = 16         # bytes of a body that has an ETag; a shorter one costs no more than a validation

cdef bytes WELL_KNOWN_CORE = b".well-known/core"

cdef Refusal BAD_METHOD = Refusal(METHOD_NOT_ALLOWED, "coap_method", "POST, PUT, GET or FETCH")
cdef Refusal BAD_FORMAT = Refusal(NOT_ACCEPTABLE, "coap_not_acceptable", "No response has this Content-Format")
cdef Refusal ECHO_REQUIRED = Refusal(UNAUTHORIZED, "coap_echo_required", "")
cdef Refusal NOT_KP1 = Refusal(
    NOT_FOUND, "coap_not_kp1", "Resource path must be kp1/<application version>/<extension instance>/..."
)
cdef Refusal LONG_PATH = Refusal(NOT_FOUND, "coap_long_path", "Resource path is too long")
cdef Refusal DRAINING = Refusal(SERVICE_UNAVAILABLE, "draining", "The gateway is shutting down")
cdef Refusal NATS_AWAY = Refusal(SERVICE_UNAVAILABLE, "nats_away", "NATS is not connected")
cdef Refusal OVERLOADED = Refusal(SERVICE_UNAVAILABLE, "backlog", "Too many messages wait to be forwarded")
cdef Refusal TOO_MANY_PENDING = Refusal(
    SERVICE_UNAVAILABLE, "too_many_pending_requests", "Too many requests wait for an answer"
)
cdef Refusal TOO_MANY_WAIT = Refusal(
    SERVICE_UNAVAILABLE, "coap_too_many_waiting", "Too many requests wait for a push"
)
cdef Refusal NO_MEMORY = Refusal(SERVICE_UNAVAILABLE, "coap_block_memory", "Too many blockwise transfers")
cdef Refusal INCOMPLETE = Refusal(REQUEST_ENTITY_INCOMPLETE, "coap_incomplete", "Blocks before this one are missing")
cdef Refusal SHORT_BLOCK = Refusal(BAD_REQUEST, "coap_short_block", "A block that is not the last must be whole")
cdef Refusal TOO_LARGE = Refusal(REQUEST_ENTITY_TOO_LARGE, "coap_body_too_large", "The body is too large")
cdef Refusal NO_BODY = Refusal(
    REQUEST_ENTITY_INCOMPLETE, "coap_no_such_body", "No response is kept that has this block"
)
cdef Refusal BAD_WAITING_TIME = Refusal(BAD_REQUEST, "coap_wait", "wait must be a number of seconds above 0")
cdef Refusal NO_BLOCK = Refusal(BAD_REQUEST, "coap_block_number", "The body has no such block")


cdef inline bint is_whole(Block block, Py_ssize_t size) noexcept nogil:
    """Return whether a block that is not the last has its whole size."""
    if block.szx == BERT:
        return size > 0 and size % 1024 == 0
    return size == 16 << block.szx


cdef CoapPeer new_peer(CoapContext context, Outbox outbox, double now):
    """Return a new peer that is sent to through `outbox`. The caller opens its session."""
    cdef CoapPeer peer = CoapPeer()
    peer.counters = context.counters
    peer.protocol = COAP
    peer.context = context
    peer.connectionless = True
    peer.exchanges = ExchangeTable()
    outbox.context = context
    outbox.peer = peer
    outbox.transmissions = {}
    peer.outbox = outbox
    peer.observer = Observer()
    peer.observer.context = context
    peer.observer.outbox = outbox
    peer.observer.peer = peer
    peer.observer.observations = {}
    peer.heard = peer.request_credit_at = now
    peer.request_credit = max(context.requests_per_second, 1.0)
    return peer


cdef bint end_observations(CoapContext context) except -1:
    """End some observations because the server drains. Return whether there are more."""
    cdef Observation observation
    for observation in list(islice(context.observations.observations, ENDED_AT_ONCE)):
        (<CoapPeer>observation.peer).observer.end_all(SERVICE_UNAVAILABLE)
    return len(context.observations) > 0


cdef int end_unserved(CoapContext context) except -1:
    """End observations whose resource is gone, of the next ones that are to be checked."""
    cdef Observation observation
    for observation in context.observations.next_unserved(context.served):
        (<CoapPeer>observation.peer).observer.send_notification(observation, NOT_FOUND, -1, Slice(NULL, 0), None)
    return 0


cdef bint end_waits(CoapContext context) except -1:
    """Answer some requests that wait for a push, because the server drains. Return whether there are more."""
    cdef Exchange exchange
    for exchange in context.waiting.some(ENDED_AT_ONCE):
        expire(<CoapPeer>exchange.peer, exchange)
    # A request whose message NATS does not have yet ends when it has.
    return len(context.waiting.slots) > 0


cdef bint expire_waits(CoapContext context, double now) except -1:
    """Answer requests whose wait for a push is over. Return whether there may be more."""
    cdef Exchange exchange
    cdef bint more = False
    for exchange in context.waiting.due(now, EXPIRED_AT_ONCE):
        expire(<CoapPeer>exchange.peer, exchange)
        more = True
    return more


@cython.final
cdef class CoapPeer(Session):
    """A device, or any other client that sends CoAP from one address."""

    def describe(self):
        """Return what an operator may see of it."""
        return {
            **Session.describe(self),
            **self.outbox.describe(),
        }

    # ------------------------------------------------------------ requests

    cdef int receive_request(self, const MessageView* view, const Request* request, double now) except -1:
        """Handle a well-formed request, whose resource path is in `context.path`. Hot path.

        `view` and `request` borrow from the datagram and end with the call.
        """
        cdef CoapContext context = self.context
        cdef Slice path = Slice(context.path.data, context.path.size)
        cdef Exchange exchange = self.exchanges.find(view.message_id)
        cdef const CompletedRequest* completed
        cdef Refusal refusal
        cdef Observation observation
        if exchange is not None:
            if exchange.lifetime_end > now and exchange.has_token(view.token):
                return self.repeat_acknowledgement(exchange)
            self.stop_waiting(exchange)
        completed = context.completed.find(&self.completed, view.message_id, view.token, now)
        if completed != NULL:
            return self.repeat_response(completed)
        exchange = self.open_exchange(view, now)
        if request.fault != NO_FAULT:
            refusal = refusal_for(request.fault)
            if view.type == NON and refusal.code == BAD_OPTION:
                context.counters.count("refused", refusal.reason)
                self.complete(exchange, Slice(NULL, 0))
                return self.outbox.send_empty(RST, view.message_id)  # RFC 7252 section 5.4.1: it is rejected
            return self.refuse(exchange, refusal)
        exchange.set_options(request)
        if request.echo.data != NULL and context.echo.is_valid(
            address_key(&self.outbox.address), request.echo.data[:request.echo.size], now
        ):
            self.outbox.verify_address(now)
        if context.require_echo and self.outbox.verified_until <= now:
            return self.refuse(exchange, ECHO_REQUIRED)
        if view.code not in (POST, GET, PUT, FETCH):
            return self.refuse(exchange, BAD_METHOD)
        if context.draining:
            return self.refuse(exchange, DRAINING)
        if not is_kp1(path):
            if view.code == GET and context.path.copy() == WELL_KNOWN_CORE:
                return self.list_links(exchange, view, request)
            return self.refuse(exchange, NOT_KP1)
        if not is_known_format(request.accept):
            return self.refuse(exchange, BAD_FORMAT)
        if path.size > context.uplink.router.topic_size_max:
            return self.refuse(exchange, LONG_PATH)  # before anything is kept under its name
        if request.wait == BAD_WAIT:
            return self.refuse(exchange, BAD_WAITING_TIME)
        if view.payload.size > context.body_size_max:
            return self.refuse(exchange, TOO_LARGE)
        exchange.set_transfer_key(request.request_tag, path)
        if request.has_block2 and request.block2.number > 0 and not request.has_block1:
            return self.send_next_block(exchange, request, now)
        if request.observe == DEREGISTER:
            observation = self.observer.observations.get(view.token.data[:view.token.size])
            if observation is not None:
                self.observer.remove(observation)
        if request.has_block1:
            exchange.has_block1 = True
            exchange.block1 = request.block1
            return self.receive_block(exchange, request, view.payload, now)
        return self.forward(exchange, view.payload, now)

    cdef Exchange open_exchange(self, const MessageView* view, double now):
        """Return a new exchange, by whose message ID duplicates are found. Hot path."""
        cdef CoapContext context = self.context
        cdef Exchange exchange = <Exchange>context.spare.pop() if context.spare else Exchange()
        # The open exchanges are fewer than the bound, and stay.
        if self.exchanges.count + self.completed.count >= context.exchanges_per_peer:
            context.completed.remove_oldest_of(&self.completed)
        self.generation = (self.generation + 1) & GENERATION_MASK
        exchange.begin(self, view, self.generation << 16 | view.message_id, now)
        exchange.piggyback_deadline = now + context.piggyback_delay
        self.exchanges.add(exchange)
        return exchange

    cdef int receive_block(self, Exchange exchange, const Request* request, Slice payload, double now) except -1:
        """Add a block to a request's body, and forward the body with its last block."""
        cdef CoapContext context = self.context
        cdef int64_t offset = block_offset(request.block1)
        cdef BlockResult result
        cdef Response response
        cdef bytes key, token
        cdef Body body
        cdef Buffer content
        if request.block1.more and not is_whole(request.block1, payload.size):
            return self.refuse(exchange, SHORT_BLOCK)
        if request.size1 > context.body_size_max or offset + payload.size > context.body_size_max:
            return self.refuse(exchange, TOO_LARGE)
        if offset == 0 and not request.block1.more:
            return self.forward(exchange, payload, now)
        key = exchange.transfer_key.copy()
        token = exchange.token_bytes[:exchange.token_size]
        result = context.requests.add_block(self, key, token, request.block1, payload, now)
        if result == BLOCKS_MISSING or result == NO_BLOCK_MEMORY:
            return self.refuse(exchange, INCOMPLETE if result == BLOCKS_MISSING else NO_MEMORY)
        if request.block1.more:
            start_response(&response, CONTINUE)
            return self.respond(exchange, &response)
        body = context.requests.current
        if result == REPEATED:
            return self.repeat_upload(exchange, body)
        content = context.requests.take_content(body)
        exchange.upload = body
        return self.forward(exchange, Slice(content.data, content.size), now)

    cdef int repeat_upload(self, Exchange exchange, Body request) except -1:
        """Respond to the repeated last block of a body as before; it has its effect once."""
        cdef Response response
        if request.code == 0:
            # The response to the first one will come.
            self.complete(exchange, Slice(NULL, 0))
            return self.outbox.send_empty(ACK, exchange.message_id) if exchange.type == CON else 0
        start_response(&response, request.code)
        response.body = Slice(request.content.data, request.content.size)
        response.content_format = request.content_format
        return self.respond(exchange, &response)

    cdef int forward(self, Exchange exchange, Slice payload, double now) except -1:
        """Forward a whole request, whose path is in `context.path`, to its extension. Hot path."""
        cdef CoapContext context = self.context
        cdef Message message
        cdef Outcome outcome
        cdef double wait
        if not context.uplink.link.ready:
            return self.refuse(exchange, NATS_AWAY)
        if self.pending_count + len(self.outbox.transmissions) >= context.outstanding_per_peer \
                or not context.pending.add(self, exchange.sequence, now):
            return self.refuse(exchange, TOO_MANY_PENDING)
        exchange.stage = FORWARDED
        self.pending_count += 1
        if exchange.type == CON:
            context.unacknowledged.append(exchange)
        message.topic = Slice(context.path.data, context.path.size)
        message.payload = payload
        message.service = REQUEST
        message.unanswered = exchange.unanswered
        message.token = TAKEN_TOKEN | exchange.sequence if exchange.unanswered else 0
        message.sequence = exchange.sequence
        message.timeout = 0 if exchange.unanswered else <int64_t>(1000 * context.pending.timeout)
        if exchange.wait > 0:
            wait = min(<double>exchange.wait, context.waiting.wait_max)
            if not prepare_waiting(self, exchange, message.topic, now + wait):
                return self.refuse(exchange, TOO_MANY_WAIT)
            message.timeout = <int64_t>(1000 * wait)
        message.literal = True
        message.needs_request_id = True
        message.traceparent = Slice(NULL, 0)
        # `fail` may be called for this request before publish returns.
        outcome = context.uplink.publish(self, &message)
        if outcome == BUSY:
            return self.refuse(exchange, OVERLOADED)
        if outcome == IGNORED:
            return self.refuse(exchange, NOT_KP1)
        return 0

    # ------------------------------------------------------------ duplicates of requests

    cdef int repeat_acknowledgement(self, Exchange exchange) except -1:
        """Acknowledge a duplicate of a request that has no response yet (RFC 7252 sections 4.2 and 4.3)."""
        self.context.counters.count("dropped", "coap_duplicate")
        if exchange.type != CON:
            return 0
        if exchange.stage == FORWARDED:
            return self.acknowledge_separately(exchange)
        return self.outbox.send_empty(ACK, exchange.message_id)

    cdef int repeat_response(self, const CompletedRequest* completed) except -1:
        """Answer a duplicate of a completed request as the request was answered."""
        cdef Slice response = response_of(completed)
        self.context.counters.count("dropped", "coap_duplicate")
        if completed.type != CON:
            return 0
        if response.size == 0:
            return self.outbox.send_empty(ACK, completed.message_id)
        if response.size > self.outbox.send_limit(self.context.now):
            return 0
        return self.outbox.send(response.data, response.size)

    cdef int acknowledge_separately(self, Exchange exchange) except -1:
        """Send an empty acknowledgement: the extension takes long, and the response will be a separate one."""
        exchange.list.remove(exchange)
        exchange.stage = ACKNOWLEDGED
        return self.outbox.send_empty(ACK, exchange.message_id)

    # ------------------------------------------------------------ responses

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Send an extension's answer as the response to its request, or a push as notifications. Hot path.

        Return False if nobody waits for it.
        """
        cdef Exchange exchange
        if delivery.correlated:
            exchange = self.find_exchange(delivery.sequence)
            if exchange is None:
                return False
            self.respond_with(exchange, delivery.data, endpoint)
            return True
        if self.waiting and deliver_to_waiting(self, delivery, endpoint):
            return True
        return self.observer.deliver(delivery.data, endpoint, delivery.receipt)

    cdef int acknowledge(self, uint32_t token) except -1:
        """Respond to a request that wants no answer of its extension, or let it wait: NATS has taken it."""
        cdef Exchange exchange = self.find_exchange(token & SEQUENCE_MASK)
        cdef Response response
        if exchange is None:
            return 0
        if exchange.waiting is not None:
            return begin_waiting(self, exchange)
        start_response(&response, code_of_status(OK, exchange.method))
        return self.respond(exchange, &response)

    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1:
        """Respond to a request that cannot be forwarded or was not answered in time."""
        cdef Exchange exchange = self.find_exchange(sequence)
        if exchange is None:
            return 0
        return self.respond_error(exchange, code_of_status(status, exchange.method), reason_phrase.encode())

    cdef Exchange find_exchange(self, uint32_t sequence):
        """Return the exchange that waits for the answer with this sequence, or None. Hot path."""
        cdef Exchange exchange = self.exchanges.find(<uint16_t>(sequence & 0xFFFF))
        if exchange is None or exchange.sequence != sequence or exchange.stage == RECEIVED:
            return None
        return exchange

    cdef int start_response_with(
        self, Exchange exchange, const ExtensionDataView* data, Response* response
    ) noexcept:
        """Begin the response to a request with an ExtensionData. Hot path."""
        start_response(response, code_of_status(data.status_code, exchange.method))
        if response.code >= BAD_REQUEST and data.reason_phrase.size:
            response.body = cut_diagnostic(data.reason_phrase)
        elif response.code != VALID and data.payload.size:
            response.body = data.payload
            response.content_format = format_of_payload(exchange.accept)
        if response.code == SERVICE_UNAVAILABLE:
            response.max_age = RETRY_AFTER
        return 0

    cdef int respond_with(self, Exchange exchange, const ExtensionDataView* data, Endpoint endpoint) except -1:
        """Respond to a request with the answer of its extension. Hot path."""
        cdef Observation observation = None
        cdef Response response
        cdef bytes etag
        exchange.answered = True
        self.start_response_with(exchange, data, &response)
        if exchange.observe == REGISTER and response.code == CONTENT and endpoint is not None:
            response.observe = self.observer.register(exchange, endpoint)
            if response.observe >= 0:
                response.max_age = NOTIFICATION_MAX_AGE
                observation = self.observer.observations.get(exchange.token_bytes[:exchange.token_size])
        if response.code == CONTENT and response.body.size >= VALIDATED_SIZE_MIN:
            etag = etag_of(response.body)
            response.etag = slice_of(etag)
            exchange.validate(&response)
        self.respond(exchange, &response)
        return 0 if observation is None else self.observer.send_queued(observation)

    cdef int send_next_block(self, Exchange exchange, const Request* request, double now) except -1:
        """Respond with a further block of a response that was kept."""
        cdef Body body = self.context.responses.find_response(
            self, exchange.transfer_key.copy(), exchange.token_bytes[:exchange.token_size], now
        )
        cdef Response response
        if body is None:
            return self.refuse(exchange, NO_BODY)
        start_response(&response, body.code)
        body.select_block(request.block2, &response)
        if response.offset >= response.body.size:
            return self.refuse(exchange, NO_BLOCK)
        return self.respond(exchange, &response)

    cdef int list_links(self, Exchange exchange, const MessageView* view, const Request* request) except -1:
        """Respond with /.well-known/core, filtered by the queries (RFC 6690 section 4.1)."""
        cdef Response response
        cdef bytes body, etag
        if request.accept >= 0 and request.accept != LINK_FORMAT:
            return self.refuse(exchange, BAD_FORMAT)
        start_response(&response, CONTENT)
        body, etag = self.context.links.select(queries_of(view))
        response.body = slice_of(body)
        response.content_format = LINK_FORMAT
        response.etag = slice_of(etag)
        response.kept = True
        if request.has_block2:
            response.offset = block_offset(request.block2)
            if response.offset and response.offset >= response.body.size:
                return self.refuse(exchange, NO_BLOCK)
        if response.offset == 0:
            exchange.validate(&response)
        return self.respond(exchange, &response)

    cdef int refuse(self, Exchange exchange, Refusal refusal) except -1:
        """Respond with an error of the gateway's own, and count it."""
        self.context.counters.count("refused", refusal.reason)
        return self.respond_error(exchange, refusal.code, refusal.diagnostic)

    cdef int respond_error(self, Exchange exchange, uint8_t code, bytes diagnostic) except -1:
        """Respond with an error and a diagnostic payload."""
        cdef CoapContext context = self.context
        cdef Response response
        cdef bytes echo
        start_response(&response, code)
        response.body = cut_diagnostic(slice_of(diagnostic))
        if code == SERVICE_UNAVAILABLE:
            response.max_age = RETRY_AFTER
        elif code == TOO_MANY_REQUESTS and context.uplink.retry_after:
            response.max_age = context.uplink.retry_after  # RFC 8516
        elif code == REQUEST_ENTITY_TOO_LARGE:
            response.size1 = context.body_size_max
        elif code == UNAUTHORIZED and context.require_echo:
            echo = context.echo.make(address_key(&self.outbox.address), context.now)
            response.echo = slice_of(echo)
        return self.respond(exchange, &response)

    cdef int respond(self, Exchange exchange, Response* response) except -1:
        """Send the response to a request and complete the exchange. Hot path.

        The response is piggybacked on the acknowledgement, or a separate message if that was sent or the request was
        non-confirmable (RFC 7252 section 5.2).
        """
        cdef Buffer out = self.context.out
        cdef bint piggybacked = exchange.type == CON and exchange.stage != ACKNOWLEDGED
        cdef uint16_t message_id = exchange.message_id if piggybacked else self.outbox.new_message_id()
        cdef Type type = ACK if piggybacked else exchange.type
        cdef bint suppressed = (
            response.code != CONTINUE and exchange.no_response >> ((response.code >> 5) - 1) & 1  # RFC 7967
        )
        response.has_block1 = exchange.has_block1
        response.block1 = exchange.block1
        response.has_block2 = exchange.has_block2 and response.code < BAD_REQUEST
        if response.code < BAD_REQUEST:
            response.szx = exchange.szx
        if exchange.upload is not None:
            self.context.requests.keep_response_to(<Body>exchange.upload, response)
            exchange.upload = None
        cdef Slice key = Slice(exchange.transfer_key.data, exchange.transfer_key.size)
        if not suppressed and not self.outbox.encode(
            type, message_id, exchange.token(), response, key, self.outbox.send_limit(self.context.now)
        ):
            if exchange.type == CON:
                self.outbox.hold_confirmable(self.outbox.new_message_id(), exchange.token(), response, key)
            suppressed = True
        self.complete(exchange, Slice(out.data, out.size if piggybacked and not suppressed else 0))
        if suppressed:
            return self.outbox.send_empty(ACK, message_id) if piggybacked else 0
        if type == CON:
            return self.outbox.send_confirmable(message_id, None)
        return self.outbox.send(out.data, out.size)

    cdef int complete(self, Exchange exchange, Slice datagram) except -1:
        """End an exchange, and keep the datagram that answers duplicates of its request. Hot path.

        An empty one stands for an empty acknowledgement. The exchange may be used for another request from here on.
        """
        cdef CoapContext context = self.context
        self.stop_waiting(exchange)
        if not self.closed and exchange.type != STREAM:  # over a stream nothing comes twice
            context.completed.add(
                &self.completed, exchange.type, exchange.message_id, exchange.token(), exchange.lifetime_end, datagram
            )
        if len(context.spare) < SPARE_EXCHANGES:
            exchange.peer = None
            exchange.transfer_key.clear(SPARE_KEY_SIZE)
            context.spare.append(exchange)
        return 0

    cdef int stop_waiting(self, Exchange exchange) except -1:
        """Take an exchange out of all tables of open ones. Hot path."""
        cdef CoapContext context = self.context
        if exchange.list is not None:
            exchange.list.remove(exchange)
        if exchange.waiting is not None:
            end_waiting(self, exchange)
        if exchange.stage != RECEIVED:
            self.pending_count -= 1
            if exchange.answered:
                context.pending.answered(self.key, exchange.sequence)
            else:
                context.pending.forget(self.key, exchange.sequence)
        return self.exchanges.remove(exchange)

    # ------------------------------------------------------------ acknowledgements of our messages

    cdef int receive_acknowledgement(self, uint16_t message_id, double now) except -1:
        """Handle an ACK. One for our message ID proves that the peer receives at its address."""
        cdef Transmission transmission = self.outbox.transmissions.get(message_id)
        if transmission is None:
            return 0
        self.outbox.verify_address(now)
        if transmission.receipt is not None:
            transmission.receipt.end(DELIVERED, None)
        self.outbox.end_transmission(transmission)
        return 0 if transmission.observation is None else self.observer.send_queued(transmission.observation)

    cdef int receive_reset(self, uint16_t message_id) except -1:
        """Handle an RST: the peer rejects a message of ours, which ends the observation that it belongs to."""
        cdef Transmission transmission = self.outbox.transmissions.get(message_id)
        return 0 if transmission is None else self.give_up(transmission, "coap_reset_by_device")

    cdef int retransmit(self, Transmission transmission, double now) except -1:
        """Send a confirmable message that is due again, or give it up. The timer has let go of it."""
        if self.outbox.transmissions.get(transmission.message_id) is not transmission:
            return 0  # it was acknowledged or given up meanwhile
        return 0 if self.outbox.retransmit(transmission, now) else self.give_up(transmission, "coap_unacknowledged")

    cdef int send_held(self, double now) except -1:
        """Send what was held, as far as it may be sent now: the peer has sent something, or its address is verified."""
        self.outbox.send_held(now)
        return self.observer.send_all_queued()

    cdef int give_up(self, Transmission transmission, str reason) except -1:
        """End a transmission that the peer has rejected or never acknowledged, and its observation with it."""
        cdef Observation observation = transmission.observation
        if transmission.receipt is not None:
            transmission.receipt.end(DROPPED, reason)
        self.outbox.end_transmission(transmission)
        if observation is None:
            return 0
        self.context.counters.count("closed", "coap_observer_gone")
        return self.observer.remove(observation)

    # ------------------------------------------------------------ limits

    cdef bint may_request(self, double now) noexcept:
        """Return whether the rate limit allows one more request: a bucket that holds a second's worth. Hot path."""
        cdef double rate = self.context.requests_per_second
        if rate <= 0:
            return True
        self.request_credit = min(self.request_credit + (now - self.request_credit_at) * rate, max(rate, 1.0))
        self.request_credit_at = now
        if self.request_credit < 1:
            return False
        self.request_credit -= 1
        return True

    # ------------------------------------------------------------ the end

    cdef bint is_busy(self) noexcept:
        """Return whether the end of the peer would lose more than completed requests."""
        return self.pending_count > 0 or len(self.outbox.transmissions) > 0 or len(self.observer.observations) > 0

    cdef int end(self, str reason) except -1:
        """End the session of a client that may not go on."""
        self.observer.end_all(NOT_FOUND)
        if self.outbox.stream is not None:
            return self.outbox.stream.end(reason)
        self.context.counters.count("closed", reason)
        self.context.core.socket.disconnect(&self.outbox.address)
        return self.context.core.forget(&self.outbox.address)

    cdef int close(self) except -1:
        """Remove everything of this peer from the shared tables, and close its session.

        The table of completed requests borrows `self.completed`, so those are removed first. `complete` adds none to a
        closed peer.
        """
        cdef CoapContext context = self.context
        cdef Exchange exchange
        context.completed.remove_all_of(&self.completed)
        self.observer.close()
        exchange = self.exchanges.any_one()
        while exchange is not None:
            self.stop_waiting(exchange)
            exchange = self.exchanges.any_one()
        self.outbox.close()
        context.requests.remove_all(self)
        context.responses.remove_all(self)
        return context.sessions.close(self)
