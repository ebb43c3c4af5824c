"""One peer of the CoAP server: the way of its requests up to the extension, and of responses and notifications down.

The way of a request: `receive_request` finds duplicates, opens an exchange and serves it; `forward` hands the message
to the uplink. The way of its response: `deliver` has the extension's answer, `respond` encodes it, completes the
exchange and sends it. Everything with rules of its own is beside the peer: options.pyx (what messages say),
exchanges.pyx (requests and their duplicates), outbox.pyx (messages to the peer), acknowledgements.pyx (what becomes of
them), block_requests.pyx, waiting_request.pyx and observer.pyx.

Source: RFC 7252 sections 4 and 5; RFC 7641 (Observe); RFC 7959 (blocks); RFC 7967 (No-Response); RFC 9175 (Echo); 1/KP.
"""

cimport cython
from libc.stdint cimport int64_t

from kaa_gateway.coap.block_requests cimport receive_block, send_next_block
from kaa_gateway.coap.blocks cimport Body, etag_of
from kaa_gateway.coap.exchanges cimport ACKNOWLEDGED, FORWARDED, RECEIVED, response_of
from kaa_gateway.coap.observations cimport Observation
from kaa_gateway.coap.observer cimport NONE_OBSERVED, NOTIFICATION_MAX_AGE, Observer
from kaa_gateway.coap.options cimport (
    JSON, LINK_FORMAT, NO_FAULT, code_of_status, cut_diagnostic, format_of_payload, is_known_format, queries_of,
    refusal_for, start_response,
)
from kaa_gateway.coap.outbox cimport NONE_SENT
from kaa_gateway.coap.refusals cimport (
    BAD_BATCH_FORMAT, BAD_BATCH_SIZE, BAD_FORMAT, BAD_METHOD, BAD_WAITING_TIME, DRAINING, ECHO_REQUIRED, LONG_PATH,
    NATS_AWAY, NOT_KP1, NO_BLOCK, OVERLOADED, TOO_LARGE, TOO_MANY_PENDING, TOO_MANY_WAIT,
)
from kaa_gateway.coap.waiting_request cimport (
    begin_waiting, deliver_to_waiting, end_waiting, end_waits_for, prepare_waiting,
)
from kaa_gateway.counters cimport COAP
from kaa_gateway.kp.correlation cimport REQUEST, SEQUENCE_MASK, Service
from kaa_gateway.kp.resource_path cimport is_kp1
from kaa_gateway.kp.session cimport Attachment, Delivery
from kaa_gateway.kp.uplink cimport BUSY, IGNORED, Message, Outcome
from kaa_gateway.net.addresses cimport address_key
from kaa_gateway.wire.buffer cimport Buffer, slice_of
from kaa_gateway.wire.coap cimport (
    ACK, BAD_OPTION, BAD_REQUEST, CON, CONTENT, CONTINUE, FETCH, GET, NON, NOT_FOUND, POST, PUT,
    REQUEST_ENTITY_TOO_LARGE, RST, SERVICE_UNAVAILABLE, STREAM, TOO_MANY_REQUESTS, UNAUTHORIZED, VALID, Type,
    block_offset,
)
from kaa_gateway.wire.query cimport BAD_BATCH, BAD_WAIT, NO_WAIT

cdef enum:
    RETRY_AFTER = 1                 # seconds, in Max-Age of a 5.03
    REGISTER = 0                    # values of Observe in a request (RFC 7641 section 2)
    DEREGISTER = 1
    OK = 200
    TAKEN_TOKEN = 0x10000000        # with the sequence of the exchange, the argument of `acknowledge`
    GENERATION_MASK = 0xFFF         # bits of a sequence above the message ID
    SPARE_EXCHANGES = 1024          # kept for use, at most
    SPARE_KEY_SIZE = 256            # bytes of a transfer key, in each
    VALIDATED_SIZE_MIN = 16         # bytes of a body that has an ETag; a shorter one costs no more than a validation

cdef bytes WELL_KNOWN_CORE = b".well-known/core"


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
    outbox.transmissions = NONE_SENT
    peer.outbox = outbox
    peer.observer = Observer()
    peer.observer.context = context
    peer.observer.outbox = outbox
    peer.observer.peer = peer
    peer.observer.observations = NONE_OBSERVED
    peer.heard = peer.request_credit_at = now
    peer.request_credit = max(context.requests_per_second, 1.0)
    return peer


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
        if request.query.wait == BAD_WAIT:
            return self.refuse(exchange, BAD_WAITING_TIME)
        if request.query.wait != NO_WAIT and request.query.batch:
            if request.query.batch == BAD_BATCH:
                return self.refuse(exchange, BAD_BATCH_SIZE)
            if request.accept >= 0 and request.accept != JSON:
                return self.refuse(exchange, BAD_BATCH_FORMAT)
        if view.payload.size > context.body_size_max:
            return self.refuse(exchange, TOO_LARGE)
        exchange.set_transfer_key(request.request_tag, path)
        if request.has_block2 and request.block2.number > 0 and not request.has_block1:
            return send_next_block(self, exchange, request, now)
        if request.observe == DEREGISTER:
            observation = self.observer.observations.get(view.token.data[:view.token.size])
            if observation is not None:
                self.observer.remove(observation)
        if request.has_block1:
            exchange.has_block1 = True
            exchange.block1 = request.block1
            return receive_block(self, exchange, request, view.payload, now)
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
        if self.waiting is not None and deliver_to_waiting(self, delivery, endpoint):
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

    cdef int on_detached(self, Attachment attachment) except -1:
        """End the waits for pushes to an endpoint that is not the session's any more."""
        return end_waits_for(self, attachment)

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
        end_waits_for(self, None)
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
