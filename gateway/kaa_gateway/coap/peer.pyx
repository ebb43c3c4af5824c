"""Requests and responses of CoAP, for one peer: what becomes ClientData, and how its answer goes back.

Which message a request came in, and how often, is the message layer's (coap_messages.pyx); notifications are
coap_notify.pyx.

Source: RFC 7252 section 5; RFC 7959 (blockwise); RFC 7967 (No-Response); 1/KP, its CoAP binding.
"""

from libc.stdint cimport int64_t, uint16_t

from kaa_gateway.kp.correlation cimport REQUEST, SEQUENCE_MASK, Service
from kaa_gateway.kp.resource_path cimport is_kp1
from kaa_gateway.kp.sessions cimport Delivery
from kaa_gateway.kp.uplink cimport BUSY, IGNORED, Message, Outcome
from kaa_gateway.coap.answer cimport (
    PHRASE_SIZE_MAX, SZX_MAX, code_of_status, content_format, octets, start_answer,
)
from kaa_gateway.coap.blocks cimport Body, BodyTable
from kaa_gateway.coap.answered cimport Answered
from kaa_gateway.coap.exchanges cimport ACKNOWLEDGED, ARRIVED, PENDING
from kaa_gateway.coap.messages cimport CoapShared
from kaa_gateway.coap.observe cimport Observer
from kaa_gateway.coap.request cimport NO_REFUSAL, refusal_of
from kaa_gateway.net.addresses cimport address_key
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport (
    ACK, BAD_OPTION, BAD_REQUEST, CON, CONTENT, CONTINUE, FETCH, GET, METHOD_NOT_ALLOWED, NON,
    NOT_FOUND, POST, PUT, REQUEST_ENTITY_INCOMPLETE, REQUEST_ENTITY_TOO_LARGE, RST, SERVICE_UNAVAILABLE,
    UNAUTHORIZED, VALID, Type,
)

cdef enum:
    RETRY_AFTER = 1              # seconds, in Max-Age of a 5.03
    LINK_FORMAT = 40             # Content-Format of application/link-format
    REGISTER = 0                 # values of Observe in a request
    DEREGISTER = 1
    OK = 200
    TAKEN_TOKEN = 0x10000000     # with the sequence of the exchange, what Session.acknowledge is called with

cdef bytes WELL_KNOWN_CORE = b".well-known/core"

# (code, reason code, diagnostic payload)
cdef tuple BAD_METHOD = (METHOD_NOT_ALLOWED, "coap_method", "POST, PUT, GET or FETCH")
cdef tuple NO_ADDRESS_PROOF = (UNAUTHORIZED, "coap_echo_required", "")
cdef tuple NOT_KP1 = (
    NOT_FOUND, "coap_not_kp1", "Resource path must be kp1/<application version>/<extension instance>/..."
)
cdef tuple LONG_PATH = (NOT_FOUND, "coap_long_path", "Resource path is too long")
cdef tuple DRAINING = (SERVICE_UNAVAILABLE, "draining", "The gateway is shutting down")
cdef tuple NATS_AWAY = (SERVICE_UNAVAILABLE, "nats_away", "NATS is not connected")
cdef tuple OVERLOADED = (SERVICE_UNAVAILABLE, "backlog", "Too many messages wait to be forwarded")
cdef tuple TOO_MANY_PENDING = (
    SERVICE_UNAVAILABLE, "too_many_pending_requests", "Too many requests wait for an answer"
)
cdef tuple NO_BLOCK_MEMORY = (SERVICE_UNAVAILABLE, "coap_block_memory", "Too many blockwise transfers")
cdef tuple INCOMPLETE = (REQUEST_ENTITY_INCOMPLETE, "coap_incomplete", "Blocks before this one are missing")
cdef tuple SHORT_BLOCK = (BAD_REQUEST, "coap_short_block", "A block that is not the last must be whole")
cdef tuple TOO_LARGE = (REQUEST_ENTITY_TOO_LARGE, "coap_body_too_large", "The body is too large")
cdef tuple NO_BODY = (REQUEST_ENTITY_INCOMPLETE, "coap_no_such_body", "No response is kept that has this block")
cdef tuple NO_BLOCK = (BAD_REQUEST, "coap_block_number", "The body has no such block")


cdef class CoapPeer(CoapNotifier):
    """A device, or whatever sends CoAP from one address."""

    cdef bint is_busy(self) noexcept:
        """Whether forgetting it now would lose more than the memory of old requests."""
        return self.pending_count > 0 or len(self.transmissions) > 0 or len(self.observers) > 0

    cdef int end(self, str reason) except -1:
        self.shared.core.end_peer(self, reason)
        return 0

    # ------------------------------------------------------------ requests

    cdef int on_request(self, const MessageView* view, const Request* request, double now) except -1:
        """A well-formed request, whose resource path is in `shared.path`. Hot path."""
        cdef CoapShared shared = self.shared
        cdef Exchange exchange = self.exchanges.find(view.message_id)
        cdef tuple refusal
        cdef const Answered* answered
        if exchange is not None:
            if exchange.deadline > now:
                return self.on_duplicate(exchange)
            self.settle(exchange)
        answered = shared.answered.find(&self.answered, view.message_id, now)
        if answered != NULL:
            return self.on_answered_duplicate(answered)
        exchange = self.open_exchange(view, now)
        if request.refusal != NO_REFUSAL:
            refusal = refusal_of(request.refusal)
            if view.type == NON and refusal[0] == BAD_OPTION:
                self.shared.counters.count("refused", refusal[1])
                self.settle(exchange)
                self.remember(exchange, Slice(NULL, 0))
                return self.send_empty(RST, view.message_id)  # 5.4.1: it is rejected, not answered
            return self.refuse(exchange, refusal)
        exchange.accept = request.accept
        exchange.observe = request.observe
        exchange.no_response = request.no_response
        exchange.unanswered = request.unanswered
        exchange.has_block2 = request.has_block2
        exchange.szx = min(request.block2.szx, <int>SZX_MAX) if request.has_block2 else SZX_MAX
        refusal = self.judge(view, request, now)
        if refusal is not None:
            return self.refuse(exchange, refusal)
        return self.serve(exchange, view, request, now)

    cdef tuple judge(self, const MessageView* view, const Request* request, double now):
        """Why a request cannot be served whatever it is for, or None. Hot path."""
        if request.echo.data != NULL and self.shared.echo.is_good(address_key(&self.address), request.echo, now):
            self.prove(now)
        if self.shared.require_echo and self.proved_until <= now:
            return NO_ADDRESS_PROOF
        if view.code not in (POST, GET, PUT, FETCH):
            return BAD_METHOD
        if self.shared.draining:
            return DRAINING
        return None

    cdef int serve(self, Exchange exchange, const MessageView* view, const Request* request, double now) except -1:
        """Hot path."""
        cdef Buffer path = self.shared.path
        cdef Observer observer
        if not is_kp1(Slice(path.data, path.size)):
            if path.copy() == WELL_KNOWN_CORE and view.code == GET:
                return self.list_links(exchange, request, now)
            return self.refuse(exchange, NOT_KP1)
        if path.size > self.shared.uplink.router.topic_size_max:
            return self.refuse(exchange, LONG_PATH)  # before anything is kept under its name
        self.name_resource(exchange, request.request_tag)
        if request.has_block2 and request.block2.number > 0 and not request.has_block1:
            return self.continue_response(exchange, request, now)
        if request.observe == DEREGISTER:
            observer = self.observers.get(view.token.data[:view.token.size])
            if observer is not None:
                self.deregister(observer)
        if request.has_block1:
            exchange.has_block1 = True
            exchange.block1 = request.block1
            return self.on_block(exchange, request, view.payload, now)
        return self.publish(exchange, view.payload, now)

    cdef int name_resource(self, Exchange exchange, Slice tag) except -1:
        """What a transfer's blocks have in common: method, size of the Request-Tag, that, and the path. Hot path."""
        cdef Buffer path = self.shared.path
        cdef uint8_t* at = exchange.resource.reserve(2)
        at[0] = exchange.method
        at[1] = <uint8_t>tag.size
        exchange.resource.size = 2
        if tag.size:
            exchange.resource.append(tag.data, tag.size)
        return exchange.resource.append(path.data, path.size)

    cdef int publish(self, Exchange exchange, Slice payload, double now) except -1:
        """Forward a whole request, whose path has been read. Hot path."""
        cdef CoapShared shared = self.shared
        cdef Message message
        cdef Outcome outcome
        if not shared.uplink.link.ready:
            return self.refuse(exchange, NATS_AWAY)
        if self.pending_count + len(self.transmissions) >= shared.outstanding_per_peer \
                or not shared.pending.add(self, exchange.sequence, now):
            return self.refuse(exchange, TOO_MANY_PENDING)
        exchange.stage = PENDING
        self.pending_count += 1
        if exchange.type == CON:
            shared.waiting.append(exchange)
        message.topic = Slice(shared.path.data, shared.path.size)
        message.payload = payload
        message.service = REQUEST
        message.unanswered = exchange.unanswered
        message.token = TAKEN_TOKEN | exchange.sequence if exchange.unanswered else 0
        message.sequence = exchange.sequence
        message.timeout = 0 if exchange.unanswered else <int64_t>(1000 * shared.pending.timeout)
        message.literal = True
        # The session may be told to fail this very request before publish returns.
        outcome = shared.uplink.publish(self, &message)
        if outcome == BUSY:
            return self.refuse(exchange, OVERLOADED)
        if outcome == IGNORED:
            return self.refuse(exchange, NOT_KP1)
        return 0

    # ------------------------------------------------------------ blocks

    cdef int on_block(self, Exchange exchange, const Request* request, Slice payload, double now) except -1:
        """Take a block of a request's body, and forward the body if it was the last."""
        cdef BodyTable requests = self.shared.requests
        cdef int64_t offset = <int64_t>request.block1.number << (request.block1.szx + 4)
        cdef Body body
        cdef Answer answer
        if request.block1.more and payload.size != 16 << request.block1.szx:
            return self.refuse(exchange, SHORT_BLOCK)
        if request.size1 > self.shared.body_size_max or offset + payload.size > self.shared.body_size_max:
            return self.refuse(exchange, TOO_LARGE)
        if offset == 0 and not request.block1.more:
            return self.publish(exchange, payload, now)
        if offset == 0:
            body = requests.open(self, exchange.resource.copy(), now)
            if body is None:
                return self.refuse(exchange, NO_BLOCK_MEMORY)
        else:
            body = requests.find(self, exchange.resource.copy(), now)
        if body is None or body.content.size != offset:
            return self.refuse(exchange, INCOMPLETE)
        if not requests.extend(body, payload.data, payload.size):
            requests.remove(body)
            return self.refuse(exchange, NO_BLOCK_MEMORY)
        if request.block1.more:
            start_answer(&answer, CONTINUE)
            return self.respond(exchange, &answer)
        requests.remove(body)
        return self.publish(exchange, Slice(body.content.data, body.content.size), now)

    cdef int continue_response(self, Exchange exchange, const Request* request, double now) except -1:
        """Answer a request for a further block of a response that is kept."""
        cdef Body body = self.shared.responses.find(self, exchange.resource.copy(), now)
        cdef Answer answer
        if body is None:
            return self.refuse(exchange, NO_BODY)
        start_answer(&answer, <uint8_t>body.code)
        answer.offset = <int64_t>request.block2.number << (request.block2.szx + 4)
        if answer.offset >= body.content.size:
            return self.refuse(exchange, NO_BLOCK)
        answer.body = Slice(body.content.data, body.content.size)
        answer.content_format = body.content_format
        answer.etag = octets(body.etag)
        return self.respond(exchange, &answer)

    cdef int list_links(self, Exchange exchange, const Request* request, double now) except -1:
        """/.well-known/core."""
        cdef Answer answer
        start_answer(&answer, CONTENT)
        answer.body = octets(self.shared.links)
        answer.content_format = LINK_FORMAT
        answer.etag = octets(b"core")
        if request.has_block2:
            answer.offset = <int64_t>request.block2.number << (request.block2.szx + 4)
            if answer.offset and answer.offset >= answer.body.size:
                return self.refuse(exchange, NO_BLOCK)
        return self.respond(exchange, &answer)

    # ------------------------------------------------------------ responses

    cdef Exchange find(self, uint32_t sequence):
        """The exchange of a request that waits for its answer, or None. Hot path."""
        cdef Exchange exchange = self.exchanges.find(<uint16_t>(sequence & 0xFFFF))
        if exchange is None or exchange.sequence != sequence or exchange.stage == ARRIVED:
            return None
        return exchange

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Hot path."""
        cdef Exchange exchange
        cdef Observer observer
        cdef bint reached = False
        if delivery.correlated:
            exchange = self.find(delivery.sequence)
            if exchange is None:
                return False
            self.answer(exchange, delivery.data, endpoint)
            return True
        for observer in list(self.observers.values()):
            if observer.matches(delivery.data, endpoint):
                self.notify(observer, delivery.data)
                reached = True
        return reached

    cdef int acknowledge(self, uint32_t token) except -1:
        """NATS has a request that wants no answer of its extension."""
        cdef Exchange exchange = self.find(token & SEQUENCE_MASK)
        cdef Answer answer
        if exchange is None:
            return 0
        start_answer(&answer, code_of_status(OK, exchange.method))
        return self.respond(exchange, &answer)

    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1:
        cdef Exchange exchange = self.find(sequence)
        if exchange is None:
            return 0
        return self.answer_error(exchange, code_of_status(status, exchange.method), reason_phrase)

    cdef int answer(self, Exchange exchange, const ExtensionDataView* data, Endpoint endpoint) except -1:
        """Answer a request with what its extension said. Hot path."""
        cdef Answer answer
        exchange.has_answer = True
        start_answer(&answer, code_of_status(data.status_code, exchange.method))
        if answer.code >= BAD_REQUEST and data.reason_phrase.size:
            answer.body = Slice(data.reason_phrase.data, min(data.reason_phrase.size, <Py_ssize_t>PHRASE_SIZE_MAX))
        elif answer.code != VALID and data.payload.size:
            answer.body = data.payload
            answer.content_format = content_format(exchange.accept)
        if answer.code == SERVICE_UNAVAILABLE:
            answer.max_age = RETRY_AFTER
        if exchange.observe == REGISTER and answer.code == CONTENT and endpoint is not None:
            answer.observe = self.observe(exchange, endpoint)
        return self.respond(exchange, &answer)

    cdef int refuse(self, Exchange exchange, tuple refusal) except -1:
        """Answer a request with an error of our own."""
        self.shared.counters.count("refused", refusal[1])
        return self.answer_error(exchange, refusal[0], refusal[2])

    cdef int answer_error(self, Exchange exchange, uint8_t code, str phrase) except -1:
        cdef Answer answer
        cdef bytes text = phrase.encode()
        cdef bytes echo
        start_answer(&answer, code)
        answer.body = octets(text)
        if code == SERVICE_UNAVAILABLE:
            answer.max_age = RETRY_AFTER
        elif code == REQUEST_ENTITY_TOO_LARGE:
            answer.size1 = self.shared.body_size_max
        elif code == UNAUTHORIZED and self.shared.require_echo:
            echo = self.shared.echo.make(address_key(&self.address), self.shared.now)
            answer.echo = octets(echo)
        return self.respond(exchange, &answer)

    cdef int respond(self, Exchange exchange, Answer* answer) except -1:
        """Send a response, as its request wants it, and settle the exchange. Hot path."""
        cdef Buffer out = self.shared.out
        cdef Slice resource = Slice(exchange.resource.data, exchange.resource.size)
        cdef bint separate = exchange.type != CON or exchange.stage == ACKNOWLEDGED
        cdef uint16_t message_id = self.new_message_id() if separate else exchange.message_id
        cdef Type type = exchange.type if separate else ACK
        cdef bint suppressed = answer.code != CONTINUE and exchange.no_response >> ((answer.code >> 5) - 1) & 1
        self.settle(exchange)
        answer.has_block1 = exchange.has_block1
        answer.block1 = exchange.block1
        answer.has_block2 = exchange.has_block2 and answer.code < BAD_REQUEST
        if answer.code < BAD_REQUEST:
            answer.szx = exchange.szx
        if not suppressed and not self.compose(type, message_id, exchange.token(), answer, resource):
            suppressed = True
        self.remember(exchange, Slice(out.data, 0 if suppressed or separate else out.size))
        if suppressed:
            return 0 if separate else self.send_empty(ACK, message_id)
        if type == CON:
            return self.transmit(message_id, None)
        return self.send(out.data, out.size)
