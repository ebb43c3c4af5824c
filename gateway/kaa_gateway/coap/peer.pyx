"""One peer of the CoAP server: the way of its requests up to the extension, and of responses and notifications down.

The way of a request: `receive_request` finds duplicates, opens an exchange and serves it; `forward` hands the message
to the uplink. The way of its response: `deliver` has the extension's answer, `respond` encodes it, completes the
exchange and sends it. Everything with rules of its own is beside the peer: options.pyx (what messages say),
exchanges.pyx (requests and their duplicates), retransmission.pyx, blocks.pyx and observations.pyx.

Source: RFC 7252 sections 4 (messages) and 5 (requests and responses); RFC 7641 (Observe); RFC 7959 (blockwise
transfers); RFC 7967 (No-Response); RFC 9175 (Echo, amplification); 1/KP, its CoAP binding.
"""

cimport cython

from kaa_gateway.coap.blocks cimport BLOCKS_MISSING, NO_BLOCK_MEMORY, REPEATED, BlockResult, Body
from kaa_gateway.coap.exchanges cimport ACKNOWLEDGED, FORWARDED, RECEIVED, response_of
from kaa_gateway.coap.observations cimport Notification
from kaa_gateway.coap.options cimport (
    DIAGNOSTIC_SIZE_MAX, NO_FAULT, code_of_status, encode_response, format_of_payload, is_cut,
    is_known_format, refusal_for, start_response,
)
from kaa_gateway.kp.correlation cimport REQUEST, SEQUENCE_MASK, Service
from kaa_gateway.kp.resource_path cimport is_kp1
from kaa_gateway.kp.session cimport Delivery
from kaa_gateway.kp.uplink cimport BUSY, IGNORED, Message, Outcome
from kaa_gateway.net.addresses cimport address_key
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.coap cimport (
    ACK, BAD_OPTION, BAD_REQUEST, CON, CONTENT, CONTINUE, EMPTY, FETCH, GET, HEADER_SIZE, INTERNAL_SERVER_ERROR,
    METHOD_NOT_ALLOWED, NON, NOT_ACCEPTABLE, NOT_FOUND, POST, PUT,
    REQUEST_ENTITY_INCOMPLETE, REQUEST_ENTITY_TOO_LARGE, RST,
    SERVICE_UNAVAILABLE, UNAUTHORIZED, VALID, append_header,
)

cdef enum:
    RETRY_AFTER = 1                 # seconds, in Max-Age of a 5.03
    LINK_FORMAT = 40                # Content-Format of application/link-format
    REGISTER = 0                    # values of Observe in a request (RFC 7641 section 2)
    DEREGISTER = 1
    OBSERVE_MASK = 0xFFFFFF         # of Observe in a notification
    OK = 200
    TAKEN_TOKEN = 0x10000000        # with the sequence of the exchange, the argument of `acknowledge`
    GENERATION_MASK = 0xFFF         # bits of a sequence above the message ID
    ANY_SIZE = 1 << 30              # bytes
    SPARE_EXCHANGES = 1024          # kept for use, at most
    SPARE_KEY_SIZE = 256            # bytes of a transfer key, in each
    NOTIFICATION_MAX_AGE = 43200    # seconds: an observer that hears nothing renews its observation twice a day
    # How the limit for an unverified address is shared out, so that lost messages can be sent again within it:
    COPIES = 3                      # transmissions of a confirmable message
    NOTIFICATION_ROOM = 144         # bytes that the response to a registration leaves for the first notification

# Seconds for which an address stays verified.
cdef double VERIFIED_LIFETIME = 3600.0
# Seconds for which a response is held that may not be sent; its client waits no longer (EXCHANGE_LIFETIME).
cdef double HELD_LIFETIME = 247.0

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
cdef Refusal NO_MEMORY = Refusal(SERVICE_UNAVAILABLE, "coap_block_memory", "Too many blockwise transfers")
cdef Refusal INCOMPLETE = Refusal(
    REQUEST_ENTITY_INCOMPLETE, "coap_incomplete", "Blocks before this one are missing"
)
cdef Refusal SHORT_BLOCK = Refusal(BAD_REQUEST, "coap_short_block", "A block that is not the last must be whole")
cdef Refusal TOO_LARGE = Refusal(REQUEST_ENTITY_TOO_LARGE, "coap_body_too_large", "The body is too large")
cdef Refusal NO_BODY = Refusal(
    REQUEST_ENTITY_INCOMPLETE, "coap_no_such_body", "No response is kept that has this block"
)
cdef Refusal NO_BLOCK = Refusal(BAD_REQUEST, "coap_block_number", "The body has no such block")


cdef inline Slice cut_diagnostic(Slice phrase) noexcept:
    """Return the beginning of a phrase that a diagnostic payload may have, without part of a UTF-8 character."""
    cdef Py_ssize_t size = phrase.size
    if size > DIAGNOSTIC_SIZE_MAX:
        size = DIAGNOSTIC_SIZE_MAX
        while size > 0 and phrase.data[size] & 0xC0 == 0x80:
            size -= 1
    return Slice(phrase.data, size)


cdef class CoapContext:
    """The tables and settings that the peers of a server share."""


@cython.final
cdef class CoapPeer(Session):
    """A device, or any other client that sends CoAP from one address."""

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
                return self.send_empty(RST, view.message_id)  # RFC 7252 section 5.4.1: rejected, not answered
            return self.refuse(exchange, refusal)
        exchange.set_options(request)
        if request.echo.data != NULL and context.echo.is_valid(
            address_key(&self.address), request.echo.data[:request.echo.size], now
        ):
            self.verify_address(now)
        if context.require_echo and self.verified_until <= now:
            return self.refuse(exchange, ECHO_REQUIRED)
        if view.code not in (POST, GET, PUT, FETCH):
            return self.refuse(exchange, BAD_METHOD)
        if context.draining:
            return self.refuse(exchange, DRAINING)
        if not is_kp1(path):
            if view.code == GET and context.path.copy() == WELL_KNOWN_CORE:
                return self.list_links(exchange, request)
            return self.refuse(exchange, NOT_KP1)
        if not is_known_format(request.accept):
            return self.refuse(exchange, BAD_FORMAT)
        if path.size > context.uplink.router.topic_size_max:
            return self.refuse(exchange, LONG_PATH)  # before anything is kept under its name
        exchange.set_transfer_key(request.request_tag, path)
        if request.has_block2 and request.block2.number > 0 and not request.has_block1:
            return self.send_next_block(exchange, request, now)
        if request.observe == DEREGISTER:
            observation = self.observations.get(view.token.data[:view.token.size])
            if observation is not None:
                self.end_observation(observation)
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
        cdef int64_t offset = <int64_t>request.block1.number << (request.block1.szx + 4)
        cdef BlockResult result
        cdef Response response
        cdef bytes key, token
        cdef Body body
        cdef Buffer content
        if request.block1.more and payload.size != 16 << request.block1.szx:
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
            return self.send_empty(ACK, exchange.message_id) if exchange.type == CON else 0
        start_response(&response, request.code)
        response.body = Slice(request.content.data, request.content.size)
        response.content_format = request.content_format
        return self.respond(exchange, &response)

    cdef int forward(self, Exchange exchange, Slice payload, double now) except -1:
        """Forward a whole request, whose path is in `context.path`, to its extension. Hot path."""
        cdef CoapContext context = self.context
        cdef Message message
        cdef Outcome outcome
        if not context.uplink.link.ready:
            return self.refuse(exchange, NATS_AWAY)
        if self.pending_count + len(self.transmissions) >= context.outstanding_per_peer \
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
        return self.send_empty(ACK, exchange.message_id)

    cdef int repeat_response(self, const CompletedRequest* completed) except -1:
        """Answer a duplicate of a completed request as the request was answered."""
        cdef Slice response = response_of(completed)
        self.context.counters.count("dropped", "coap_duplicate")
        if completed.type != CON:
            return 0
        if response.size == 0:
            return self.send_empty(ACK, completed.message_id)
        return self.send(response.data, response.size) if response.size <= self.send_limit(self.context.now) else 0

    cdef int acknowledge_separately(self, Exchange exchange) except -1:
        """Send an empty acknowledgement: the extension takes long, and the response will be a separate one."""
        exchange.list.remove(exchange)
        exchange.stage = ACKNOWLEDGED
        return self.send_empty(ACK, exchange.message_id)

    # ------------------------------------------------------------ responses

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Send an extension's answer as the response to its request, or a push as notifications. Hot path.

        Return False if nobody waits for it.
        """
        cdef Exchange exchange
        cdef Observation observation
        cdef bint observed = False
        if delivery.correlated:
            exchange = self.find_exchange(delivery.sequence)
            if exchange is None:
                return False
            self.respond_with(exchange, delivery.data, endpoint)
            return True
        for observation in list(self.observations.values()):
            if observation.matches(delivery.data, endpoint):
                self.notify(observation, delivery.data)
                observed = True
        return observed

    cdef int acknowledge(self, uint32_t token) except -1:
        """Respond to a request that wants no answer of its extension: NATS has taken it."""
        cdef Exchange exchange = self.find_exchange(token & SEQUENCE_MASK)
        cdef Response response
        if exchange is None:
            return 0
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

    cdef int respond_with(self, Exchange exchange, const ExtensionDataView* data, Endpoint endpoint) except -1:
        """Respond to a request with the answer of its extension. Hot path."""
        cdef Observation observation = None
        cdef Response response
        exchange.answered = True
        start_response(&response, code_of_status(data.status_code, exchange.method))
        if response.code >= BAD_REQUEST and data.reason_phrase.size:
            response.body = cut_diagnostic(data.reason_phrase)
        elif response.code != VALID and data.payload.size:
            response.body = data.payload
            response.content_format = format_of_payload(exchange.accept)
        if response.code == SERVICE_UNAVAILABLE:
            response.max_age = RETRY_AFTER
        if exchange.observe == REGISTER and response.code == CONTENT and endpoint is not None:
            response.observe = self.observe(exchange, endpoint)
            if response.observe >= 0:
                response.max_age = NOTIFICATION_MAX_AGE
                observation = self.observations.get(exchange.token_bytes[:exchange.token_size])
        self.respond(exchange, &response)
        return 0 if observation is None else self.send_queued(observation)

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

    cdef int list_links(self, Exchange exchange, const Request* request) except -1:
        """Respond with /.well-known/core."""
        cdef Response response
        if request.accept >= 0 and request.accept != LINK_FORMAT:
            return self.refuse(exchange, BAD_FORMAT)
        start_response(&response, CONTENT)
        response.body = slice_of(self.context.links)
        response.content_format = LINK_FORMAT
        response.etag = slice_of(self.context.links_etag)
        if request.has_block2:
            response.offset = <int64_t>request.block2.number << (request.block2.szx + 4)
            if response.offset and response.offset >= response.body.size:
                return self.refuse(exchange, NO_BLOCK)
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
        elif code == REQUEST_ENTITY_TOO_LARGE:
            response.size1 = context.body_size_max
        elif code == UNAUTHORIZED and context.require_echo:
            echo = context.echo.make(address_key(&self.address), context.now)
            response.echo = slice_of(echo)
        return self.respond(exchange, &response)

    cdef int respond(self, Exchange exchange, Response* response) except -1:
        """Send the response to a request and complete the exchange. Hot path.

        The response is piggybacked on the acknowledgement, or a separate message if that was sent or the request was
        non-confirmable (RFC 7252 section 5.2).
        """
        cdef Buffer out = self.context.out
        cdef bint piggybacked = exchange.type == CON and exchange.stage != ACKNOWLEDGED
        cdef uint16_t message_id = exchange.message_id if piggybacked else self.new_message_id()
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
        if not suppressed and not self.encode(
            type, message_id, exchange.token(), response, key, self.send_limit(self.context.now)
        ):
            if exchange.type == CON:
                self.hold_confirmable(self.new_message_id(), exchange.token(), response, key)
            suppressed = True
        self.complete(exchange, Slice(out.data, out.size if piggybacked and not suppressed else 0))
        if suppressed:
            return self.send_empty(ACK, message_id) if piggybacked else 0
        if type == CON:
            return self.send_confirmable(message_id, None)
        return self.send(out.data, out.size)

    cdef int complete(self, Exchange exchange, Slice datagram) except -1:
        """End an exchange, and keep the datagram that answers duplicates of its request. Hot path.

        An empty one stands for an empty acknowledgement. The exchange may be used for another request from here on.
        """
        cdef CoapContext context = self.context
        self.stop_waiting(exchange)
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
        if exchange.stage != RECEIVED:
            self.pending_count -= 1
            if exchange.answered:
                context.pending.answered(self.key, exchange.sequence)
            else:
                context.pending.forget(self.key, exchange.sequence)
        return self.exchanges.remove(exchange)

    # ------------------------------------------------------------ observations

    cdef int64_t observe(self, Exchange exchange, Endpoint endpoint) except -2:
        """Register the client of a successful request. Return the value of Observe in its response, or -1 for none."""
        cdef CoapContext context = self.context
        cdef bytes key = exchange.transfer_key.copy()
        cdef bytes token = exchange.token_bytes[:exchange.token_size]
        cdef Observation renewed = self.observations.get(token), observation
        if renewed is not None and renewed.transfer_key != key:
            self.end_observation(renewed)
            renewed = None
        observation = context.observations.register(self, self.observations, token, key, endpoint)
        if observation is None:
            context.counters.count("refused", "coap_too_many_observers")
            return -1
        if observation.outstanding is not None and renewed is None:
            self.end_transmission(observation.outstanding)  # it has the token that the client has replaced
        context.sessions.set_online(self, True)
        self.verified_observer = self.verified_observer or context.now < self.verified_until
        observation.accept = exchange.accept
        observation.szx = exchange.szx
        self.observe_sequence = (self.observe_sequence + 1) & OBSERVE_MASK
        return self.observe_sequence

    cdef int end_observation(self, Observation observation) except -1:
        """Remove an observation, if it is not yet removed, and stop retransmitting its notification."""
        if not self.context.observations.remove(self.observations, observation):
            return 0
        if observation.outstanding is not None:
            self.end_transmission(observation.outstanding)
        if not self.observations:
            self.verified_observer = False
            self.context.sessions.set_online(self, False)
        return 0

    cdef int notify(self, Observation observation, const ExtensionDataView* data) except -1:
        """Send a push as a notification, or queue it behind the one that is not yet acknowledged.

        Each is confirmable: a push may be a command, not only the newest state.
        """
        cdef uint8_t code = code_of_status(data.status_code, GET)
        cdef int format = -1
        cdef Slice body = data.payload
        if code < BAD_REQUEST:
            code = CONTENT
            format = format_of_payload(observation.accept)
        elif data.reason_phrase.size:
            body = cut_diagnostic(data.reason_phrase)
        if observation.outstanding is None and not observation.queue \
                and self.send_notification(observation, code, format, body):
            return 0
        return self.context.observations.enqueue(observation, code, format, body)

    cdef bint send_notification(
        self, Observation observation, uint8_t code, int content_format, Slice body
    ) except -1:
        """Send a notification. Return False if it must wait until more bytes may be sent to this peer.

        One with an error code ends its observation (RFC 7641 section 4.2).
        """
        cdef uint16_t message_id = self.new_message_id()
        cdef Response response
        start_response(&response, code)
        response.body = body
        response.content_format = content_format if body.size else -1
        response.szx = observation.szx
        if code < BAD_REQUEST:
            self.observe_sequence = (self.observe_sequence + 1) & OBSERVE_MASK
            response.observe = self.observe_sequence
            response.max_age = NOTIFICATION_MAX_AGE
        else:
            self.end_observation(observation)
        if self.encode(
            CON, message_id, slice_of(observation.token), &response, slice_of(observation.transfer_key),
            self.send_limit(self.context.now),
        ):
            self.send_confirmable(message_id, observation if code < BAD_REQUEST else None)
            return True
        if code >= BAD_REQUEST:
            self.hold_confirmable(
                message_id, slice_of(observation.token), &response, slice_of(observation.transfer_key)
            )
            return True
        self.holds = True
        return False

    cdef int send_queued(self, Observation observation) except -1:
        """Send queued notifications until one of them has to be acknowledged."""
        cdef Notification notification
        while observation.outstanding is None:
            notification = self.context.observations.dequeue(observation)
            if notification is None:
                break
            if not self.send_notification(
                observation, notification.code, notification.content_format, slice_of(notification.body)
            ):
                self.context.observations.put_back(observation, notification)
                break
        return 0

    cdef int end_observations(self, uint8_t code) except -1:
        """End all observations, with a last notification that is not retransmitted."""
        cdef CoapContext context = self.context
        cdef Observation observation
        cdef Response response
        for observation in list(self.observations.values()):
            start_response(&response, code)
            if self.encode(
                NON, self.new_message_id(), slice_of(observation.token), &response,
                slice_of(observation.transfer_key), self.send_limit(context.now),
            ):
                self.send(context.out.data, context.out.size)
            self.end_observation(observation)
        return 0

    # ------------------------------------------------------------ acknowledgements of our messages

    cdef int receive_acknowledgement(self, uint16_t message_id, double now) except -1:
        """Handle an ACK. One for our message ID proves that the peer receives at its address."""
        cdef Transmission transmission = self.transmissions.get(message_id)
        if transmission is None:
            return 0
        self.verify_address(now)
        self.end_transmission(transmission)
        return 0 if transmission.observation is None else self.send_queued(transmission.observation)

    cdef int receive_reset(self, uint16_t message_id) except -1:
        """Handle an RST: the peer rejects a message of ours, which ends the observation that it belongs to."""
        cdef Transmission transmission = self.transmissions.get(message_id)
        if transmission is None:
            return 0
        return self.give_up(transmission)

    cdef int retransmit(self, Transmission transmission, double now) except -1:
        """Send a confirmable message that is due again, or give it up. The timer has let go of it."""
        cdef Py_ssize_t size = len(transmission.datagram)
        if transmission.held or not transmission.next_timeout():
            self.context.counters.count("dropped", "coap_unacknowledged")
            return self.give_up(transmission)
        if size > self.send_limit(now):
            return self.hold(transmission)
        self.context.timer.add(transmission, now + transmission.timeout)
        return self.send(<const uint8_t*>transmission.datagram, size)

    cdef int hold(self, Transmission transmission) except -1:
        """Keep a message until more bytes may be sent to this peer: as long as anyone can want it."""
        transmission.held = self.holds = True
        if transmission.observation is None:
            self.context.timer.add(transmission, self.context.now + HELD_LIFETIME)
        return 0

    cdef int send_held(self, double now) except -1:
        """Send what was held, as far as it may be sent now: the peer has sent something, or its address is verified."""
        cdef Transmission transmission
        cdef Observation observation
        cdef Py_ssize_t size
        self.holds = False
        for transmission in list(self.transmissions.values()):
            size = len(transmission.datagram)
            if not transmission.held:
                continue
            if size > self.send_limit(now):
                self.holds = True
                continue
            transmission.held = False
            self.context.timer.remove(transmission)
            self.context.timer.add(transmission, now + transmission.timeout)
            self.send(<const uint8_t*>transmission.datagram, size)
        for observation in list(self.observations.values()):
            self.send_queued(observation)
        return 0

    cdef int give_up(self, Transmission transmission) except -1:
        """End a transmission that the peer has rejected or never acknowledged, and its observation with it."""
        cdef Observation observation = transmission.observation
        self.end_transmission(transmission)
        if observation is None:
            return 0
        self.context.counters.count("closed", "coap_observer_gone")
        return self.end_observation(observation)

    cdef int end_transmission(self, Transmission transmission) except -1:
        """Stop retransmitting a message."""
        cdef Observation observation = transmission.observation
        self.transmissions.pop(transmission.message_id, None)
        self.context.timer.remove(transmission)
        if observation is not None:
            observation.outstanding = None
        return 0

    # ------------------------------------------------------------ sending

    cdef uint16_t new_message_id(self) noexcept:
        self.next_message_id += 1
        return self.next_message_id

    cdef bint encode(
        self, Type type, uint16_t message_id, Slice token, Response* response, Slice transfer_key, int64_t limit
    ) except -1:
        """Write a response into `context.out`, in at most `limit` bytes. Return False if that is impossible.

        A body of more than one block is kept for the requests for its other blocks, and has an ETag. Hot path.
        """
        cdef CoapContext context = self.context
        cdef Body body
        cdef bytes echo
        if not self.fit(type, message_id, token, response, limit):
            context.counters.count("dropped", "coap_amplification")
            return False
        if not is_cut(response) or response.etag.data != NULL:
            return True
        body = context.responses.keep(
            self, transfer_key.data[:transfer_key.size], token.data[:token.size], response, context.now
        )
        if body is None:
            context.counters.count("dropped", "coap_response_too_large")
            start_response(response, INTERNAL_SERVER_ERROR)
        else:
            response.etag = slice_of(body.etag)
            if limit < response.body.size and type != CON:
                # Returned with the request for the next block, this lifts the limit.
                echo = context.echo.make(address_key(&self.address), context.now)
                response.echo = slice_of(echo)
        return self.fit(type, message_id, token, response, limit)

    cdef bint fit(self, Type type, uint16_t message_id, Slice token, Response* response, int64_t limit) except -1:
        """Write a response into `context.out`, in at most `limit` bytes. Return False if that is impossible. Hot path.

        It is also no larger than the transport can carry. For an unverified address the limit is not used up if smaller
        blocks avoid that: a lost message can be sent again, and a registration is followed by a notification.
        """
        cdef Buffer out = self.context.out
        cdef int64_t planned = limit, carried = self.message_size_max
        cdef Response original
        if limit != ANY_SIZE and response.code < BAD_REQUEST:
            if type == CON:
                planned = limit // COPIES
            elif response.observe >= 0:
                planned = max(limit - NOTIFICATION_ROOM, limit // (COPIES + 1))
        original = response[0]
        while planned < limit:
            if encode_response(out, type, message_id, token, response, min(planned, carried)):
                return True
            response[0] = original
            planned = limit if planned >= limit // 2 else limit // 2
        return encode_response(out, type, message_id, token, response, min(limit, carried))

    cdef int hold_confirmable(
        self, uint16_t message_id, Slice token, Response* response, Slice transfer_key
    ) except -1:
        """Keep a confirmable response, as small as it can be, until it may be sent."""
        cdef CoapContext context = self.context
        cdef Transmission transmission
        response.szx = 0
        if response.code >= BAD_REQUEST:
            response.body = Slice(NULL, 0)
        self.encode(CON, message_id, token, response, transfer_key, ANY_SIZE)
        transmission = context.timer.start(self, message_id, context.out.copy(), context.now)
        context.timer.remove(transmission)
        self.transmissions[message_id] = transmission
        return self.hold(transmission)

    cdef int send_confirmable(self, uint16_t message_id, Observation observation) except -1:
        """Send the message in `context.out`, and again until it is acknowledged (RFC 7252 section 4.2)."""
        cdef CoapContext context = self.context
        cdef Transmission transmission = context.timer.start(self, message_id, context.out.copy(), context.now)
        self.transmissions[message_id] = transmission
        if observation is not None:
            transmission.observation = observation
            observation.outstanding = transmission
        return self.send(context.out.data, context.out.size)

    cdef int send(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Send a datagram, and count it against the limit for unverified addresses. Hot path."""
        self.amplification_credit = max(self.amplification_credit - size, <int64_t>0)
        return self.context.core.socket.send(&self.address, data, size)

    cdef int send_empty(self, Type type, uint16_t message_id) except -1:
        """Send an empty acknowledgement or Reset, if the limit allows even that."""
        cdef Buffer out = self.context.out
        if self.send_limit(self.context.now) < HEADER_SIZE:
            return 0
        out.size = 0
        append_header(out, type, EMPTY, message_id, Slice(NULL, 0))
        return self.send(out.data, out.size)

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

    cdef int verify_address(self, double now) except -1:
        """Lift the limit of what may be sent: the peer receives at its address."""
        self.verified_until = max(self.verified_until, now + VERIFIED_LIFETIME)
        self.verified_observer = len(self.observations) > 0
        return 0

    cdef int64_t send_limit(self, double now) noexcept:
        """Return how many bytes may be sent to this peer now (RFC 9175 section 2.4). Hot path."""
        return ANY_SIZE if now < self.verified_until or self.verified_observer else self.amplification_credit

    # ------------------------------------------------------------ the end

    cdef bint is_busy(self) noexcept:
        """Return whether the end of the peer would lose more than completed requests."""
        return self.pending_count > 0 or len(self.transmissions) > 0 or len(self.observations) > 0

    cdef int end(self, str reason) except -1:
        """End the session of a client that may not go on."""
        self.end_observations(NOT_FOUND)
        self.context.counters.count("closed", reason)
        self.context.core.socket.disconnect(&self.address)
        return self.context.core.forget(&self.address)

    cdef int close(self) except -1:
        """Remove everything of this peer from the shared tables, and close its session."""
        cdef CoapContext context = self.context
        cdef Observation observation
        cdef Transmission transmission
        cdef Exchange exchange
        for observation in list(self.observations.values()):
            self.end_observation(observation)
        exchange = self.exchanges.any_one()
        while exchange is not None:
            self.stop_waiting(exchange)
            exchange = self.exchanges.any_one()
        context.completed.remove_all_of(&self.completed)
        for transmission in list(self.transmissions.values()):
            self.end_transmission(transmission)
        context.requests.remove_all(self)
        context.responses.remove_all(self)
        return context.sessions.close(self)
