"""The server's side of an HTTP/1.1 connection: a POST below /kp1 is a request to an extension.

A connection is a session. Its responses leave in the order of its requests (pipeline.pyx), even if extensions answer in
another. Requests that no extension answers expire in kaa_gateway.kp.pending.

Source: 1/KP and its HTTP binding; RFC 9112, RFC 9110.
"""

import structlog

from libc.stdint cimport int64_t

from kaa_gateway.http.parser cimport COMPLETE, HEAD, HEADED, REFUSED
from kaa_gateway.http.refusals cimport (
    BAD_CREDENTIALS, NOT_FOUND, NO_INPUT_MEMORY, OVERLOADED, TOO_MANY_PENDING, TOO_SLOW, challenge_of, may_be_honest,
    refusal_of,
)
from kaa_gateway.http.request_check cimport check_request
from kaa_gateway.http.response cimport (
    CLOSE, KEEP_ALIVE, PERSISTENT, append_continue, append_error, append_ok, append_preflight, append_response,
)
from kaa_gateway.http.session cimport HttpSession
from kaa_gateway.http.states cimport (
    AUTHENTICATING, CLOSED, CONTINUE_DUE, FINISHING, LINGERING, PIPELINE_FULL, READING, REFUSING, check_move,
)
from kaa_gateway.http.wait_clock cimport (
    ANSWER, END_OF_CLIENT, FIRST_REQUEST, NEXT_REQUEST, REST_OF_REQUEST, Wait, waited,
)
from kaa_gateway.http.waiting_request cimport WaitingRequest, await_push
from kaa_gateway.kp.correlation cimport REQUEST, SEQUENCE_MASK
from kaa_gateway.kp.uplink cimport BUSY, IGNORED, Message, Outcome
from kaa_gateway.net.input_memory cimport INPUT_FREE
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.http cimport METHOD_HEAD, METHOD_OPTIONS

from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.clients import Client, Presentation, basic_credentials

log = structlog.get_logger("gateway.http")

cdef enum:
    BUFFER_KEEP = 4096        # bytes of an empty buffer that are kept for later
    TAKEN_TOKEN = 0x10000000  # with the number of a request, the token of Session.acknowledge

# Seconds in which a client that is still sending can read a refusal: to close would reset it (RFC 9112 section 9.6).
cdef double LINGER_TIME = 2.0


cdef class HttpConnection(ProtocolCore):
    """The server's side of one connection."""

    cdef int move(self, State state) except -1:
        """Go to another state."""
        check_move(self.state, state)
        self.state = state
        return 0

    cdef bint is_serving(self) noexcept:
        """Return whether the client may send more. Hot path."""
        return self.state < FINISHING

    # ------------------------------------------------------------ bytes

    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Handle the requests in these bytes, and keep what cannot be handled yet. Hot path."""
        cdef Py_ssize_t consumed
        if self.parser is self.server.resting_parser:
            self.parser = self.server.take_parser()
            self.parser.stops_at_heads = self.server.authenticates and not self.identified
        if self.state >= PIPELINE_FULL:
            if not self.is_serving():
                return 0
            self.input.append(data, size)
            return self.count_input()
        if self.input.size:
            self.input.append(data, size)
            return self.parse_input()
        consumed = self.parse(data, size)
        if consumed < size:
            self.input.append(data + consumed, size - consumed)
        return self.count_input()

    cdef int count_input(self) except -1:
        """Count the bytes that are held of incomplete requests, and refuse them if they are too many. Hot path."""
        cdef Py_ssize_t size = self.input.capacity + self.parser.body.capacity
        if (size <= INPUT_FREE and self.input_counted == 0) or self.server.input_memory.reserve(self, size):
            return 0
        self.input.clear(0)
        if self.state == PIPELINE_FULL or self.state == AUTHENTICATING:
            # The body in the parser belongs to a request that is not refused.
            return self.end("input_memory_full")
        self.parser.body.clear(0)
        return self.refuse_and_close(NO_INPUT_MEMORY, True)

    cdef int parse_input(self) except -1:
        """Handle the requests in the input buffer."""
        # Its bytes are borrowed meanwhile: nothing that a request causes appends to it.
        cdef bint input_ended = self.input_ended
        cdef Py_ssize_t consumed
        self.input_ended = False  # else the first response would close before the other requests are handled
        consumed = self.parse(self.input.data, self.input.size)
        if consumed == self.input.size:
            self.input.clear(BUFFER_KEEP)
        else:
            self.input.consume(consumed)
        self.count_input()
        return self.end_of_input() if input_ended else 0

    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Handle requests until the rest is incomplete or has to wait; return the bytes consumed. Hot path."""
        cdef Py_ssize_t at = 0
        while at < size and self.state != AUTHENTICATING:
            if self.requests.count >= self.server.pipelined_max and self.parser.phase == HEAD \
                    and not self.server.drain_ended:
                self.move(PIPELINE_FULL)
                self.transport.pause_reading()
                break
            at += self.parser.parse(data + at, size - at)
            self.has_input_behind = at < size
            if self.parser.progress == COMPLETE:
                self.on_request()
            elif self.parser.progress == HEADED:
                self.on_head(at == size)
            elif self.parser.progress == REFUSED and self.parser.discarding:
                self.end(self.parser.refusal.reason)  # the request has its response
            elif self.parser.progress == REFUSED:
                self.refuse_and_close(self.parser.refusal, may_be_honest(self.parser.refusal))
            else:
                break
            if not self.is_serving():
                return size
        return at

    # ------------------------------------------------------------ requests

    cdef uint32_t open_request(self) except? 0:
        """Return the number of a new request, whose response follows those of the open ones."""
        cdef uint32_t number = self.requests.open()
        self.taken += 1
        if not self.server.demands_credentials:
            self.admitted = True
        self.is_http_1_0 = self.parser.is_http_1_0
        if self.server.cors is not None and self.parser.origin is not None:
            self.requests.keep_cors(number, self.server.cors_of(self.parser.origin))
        return number

    cdef int on_request(self) except -1:
        """Handle the complete request in the parser. Hot path."""
        cdef Refusal refusal
        if self.parser.discarding:
            return self.parser.next_request()  # it has its response
        if self.parser.method == METHOD_OPTIONS and self.server.cors is not None:
            return self.answer_preflight()
        refusal = check_request(self)
        if refusal is None and self.needs_authentication():
            return self.authenticate(False)
        return self.dispatch(refusal)

    cdef bint is_last_request(self) noexcept:
        """Return whether no request after the one in the parser is handled. Hot path.

        A drain does not end a connection before the requests that have arrived.
        """
        return not self.parser.keep_alive or (self.server.draining and not self.has_input_behind)

    cdef int dispatch(self, Refusal refusal) except -1:
        """Forward the request in the parser, or refuse it. Hot path."""
        cdef uint32_t number = self.open_request()
        if self.is_last_request() or self.parser.streams:
            self.move(FINISHING)
        elif self.state != READING:
            self.move(READING)
        if refusal is None:
            self.publish(number)
        else:
            self.refuse(number, refusal)
        return self.parser.next_request()

    cdef int answer_preflight(self) except -1:
        """Answer OPTIONS, which has no credentials, whatever its target."""
        cdef uint32_t number = self.open_request()
        if self.is_last_request():
            self.move(FINISHING)
        append_preflight(self.buffer_of(number), self.persistence(number), self.requests.take_cors(number))
        self.send_in_order(number)
        return self.parser.next_request()

    cdef int on_head(self, bint body_is_late) except -1:
        """Handle the head in the parser, before its body: authenticate its client, or answer its expectation."""
        cdef Refusal refusal
        cdef bint unknown = self.needs_authentication()
        if not unknown and not self.parser.expects_continue:
            return 0
        refusal = check_request(self)
        if refusal is not None:
            return self.refuse_body(refusal)
        return self.authenticate(body_is_late) if unknown else self.ask_for_body(body_is_late)

    cdef int refuse_body(self, Refusal refusal) except -1:
        """Refuse a request by its head. The client may be sending the body already, of which nothing is kept."""
        if self.parser.expects_continue or self.is_last_request():
            return self.refuse_and_close(refusal, True)
        self.refuse(self.open_request(), refusal)
        return self.parser.discard_body()

    cdef int ask_for_body(self, bint body_is_late) except -1:
        """Send 100 Continue after the responses before it, if the client waits for it (RFC 9110 section 10.1.1)."""
        if self.parser.expects_continue and body_is_late:
            self.move(CONTINUE_DUE)
            if self.requests.count == 0:
                self.send_continue()
        return 0

    cdef bint needs_authentication(self) except -1:
        """Return whether the request in the parser has other credentials than those of the session's client."""
        return self.server.authenticates and not (
            self.identified and self.parser.authorization == self.authorization
        )

    cdef int authenticate(self, bint body_is_late) except -1:
        """Ask whose credentials the request in the parser has."""
        cdef bytes authorization = self.parser.authorization
        try:
            user_name, password = basic_credentials(authorization)
        except ValueError:
            return self.go_on(BAD_CREDENTIALS, body_is_late)
        self.identified = False
        self.parser.stops_at_heads = True
        try:
            known = self.server.authenticator.authenticate(
                Presentation("http", user_name, password, self.transport.certificate)
            )
        except IdentityError as error:
            return self.go_on(refusal_of(error), body_is_late)
        if isinstance(known, Client):
            return self.identify(authorization, known, body_is_late)
        self.move(AUTHENTICATING)
        self.parser.hold()
        self.transport.pause_reading()
        known.add_done_callback(lambda done: self.authenticated(authorization, done))
        return 0

    def authenticated(self, bytes authorization, future):
        """Go on with the request in the parser, whose client is known or refused, and with the bytes behind it."""
        cdef bint body_is_late = self.input.size == 0
        if self.state != AUTHENTICATING:
            # Asyncio logs an exception of a future that nobody has looked at.
            future.exception()
            return
        self.move(READING)
        self.has_input_behind = self.input.size > 0
        try:
            client = future.result()
        except IdentityError as error:
            self.go_on(refusal_of(error), body_is_late)
        else:
            self.identify(authorization, client, body_is_late)
        if self.is_serving():
            self.transport.resume_reading()
            self.parse_input()

    cdef int identify(self, bytes authorization, client, bint body_is_late) except -1:
        """Make a client the session's, and go on with its request. The same credentials are not checked again."""
        self.identified = self.admitted = True
        self.parser.stops_at_heads = False
        self.authorization = authorization
        self.session.set_client(client)
        self.session.forget_last_route()
        # Checked again: NATS may have gone while the provider was asked.
        return self.go_on(check_request(self), body_is_late)

    cdef int go_on(self, Refusal refusal, bint body_is_late) except -1:
        """Go on with the request in the parser after its authentication; perhaps only its head is here."""
        if self.parser.progress == COMPLETE:
            return self.dispatch(refusal)
        return self.ask_for_body(body_is_late) if refusal is None else self.refuse_body(refusal)

    cdef int publish(self, uint32_t number) except -1:
        """Forward the request in the parser. Hot path."""
        cdef HttpServer server = self.server
        cdef Message message
        cdef Outcome outcome
        cdef WaitingRequest waiting
        cdef bint waits = self.parser.target.query.wait > 0 or self.parser.streams
        cdef double now = server.loop.time()
        if not server.pending.add(self.session, number, now):
            return self.refuse(number, TOO_MANY_PENDING)
        message.topic = self.parser.target.path
        message.payload = self.parser.whole_body()
        message.service = REQUEST
        message.unanswered = self.parser.target.query.no_answer or waits
        message.token = TAKEN_TOKEN | number if message.unanswered else 0
        message.sequence = number
        message.timeout = 0 if message.unanswered else <int64_t>(1000 * server.pending.timeout)
        if waits:
            waiting = self.waiting = await_push(self, number, now)
            message.timeout = <int64_t>(1000 * (waiting.deadline - now) + 0.5)
        message.literal = False
        message.needs_request_id = True
        message.traceparent = Slice(NULL, 0)
        # The uplink may call session.fail for this request before it returns.
        outcome = server.uplink.publish(self.session, &message)
        if outcome == BUSY:
            return self.refuse(number, OVERLOADED)
        if outcome == IGNORED:
            return self.refuse(number, NOT_FOUND)
        return 0

    cdef int send_continue(self) except -1:
        """Send 100 Continue, which is due."""
        self.move(READING)
        append_continue(self.output)
        return self.transport.wake()

    cdef int refuse(self, uint32_t number, Refusal refusal) except -1:
        """Answer a request with an error of the gateway's own."""
        self.server.counters.count("refused", refusal.reason)
        return self.fail(
            number, refusal.status, refusal.phrase, self.parser.method != METHOD_HEAD, challenge_of(refusal)
        )

    cdef int refuse_and_close(self, Refusal refusal, bint lingers) except -1:
        """Answer a request that is not read to its end, and read nothing after it.

        With `lingers`, the client has LINGER_TIME to read the response before the connection is closed.
        """
        log.info("connection ends: request refused", status=refusal.status, reason=refusal.reason)
        self.server.counters.count("closed", refusal.reason)
        self.move(REFUSING if lingers else FINISHING)
        return self.fail(self.open_request(), refusal.status, refusal.phrase, True, challenge_of(refusal))

    # ------------------------------------------------------------ responses

    cdef Persistence persistence(self, uint32_t number) noexcept:
        """Return what the response to this request says about the connection. Hot path."""
        if not self.is_serving() and self.requests.is_last(number):
            return CLOSE
        return KEEP_ALIVE if self.is_http_1_0 else PERSISTENT

    cdef Buffer buffer_of(self, uint32_t number):
        """Return where the response to this request is written: the output, or a scratch buffer before its turn."""
        return self.output if number == self.requests.first else self.server.scratch

    cdef int respond(self, uint32_t number, const ExtensionDataView* data) except -1:
        """Answer an open request with an ExtensionData. Hot path."""
        self.server.pending.answered(self.session.key, number)
        if self.waiting is not None and self.is_taken_by_waiting(number, data):
            return 0
        append_response(self.buffer_of(number), data, self.persistence(number), None, self.requests.take_cors(number))
        return self.send_in_order(number)

    cdef bint is_taken_by_waiting(self, uint32_t number, const ExtensionDataView* data) except -1:
        """Let the waiting request take what answers it, NULL for an error of the gateway's own, or end its wait.

        Return False if it waits no longer, and is to be answered.
        """
        cdef WaitingRequest waiting = self.waiting  # held: an answer makes the connection forget it
        if waiting.number != number:
            return False
        if waiting.take_failure() if data == NULL else waiting.take_answer(data):
            return True
        self.stop_waiting(number)
        return False

    cdef int give_parser_back(self) except -1:
        """Have no parser of its own while a request waits for a push: most of these clients send nothing meanwhile."""
        if self.state == READING and self.input.size == 0 and self.parser.is_at_rest():
            self.server.give_back(self.parser)
            self.parser = self.server.resting_parser
        return 0

    cdef int stop_waiting(self, uint32_t number) except -1:
        """Forget that this request waits, if it does: it is about to be answered."""
        cdef WaitingRequest waiting = self.waiting
        if waiting is None or waiting.number != number:
            return 0
        self.waiting = None
        self.server.pending.forget(self.session.key, number)
        return waiting.cancel()

    cdef int acknowledge(self, uint32_t number) except -1:
        """Answer an open request that wants no answer of its extension, and whose message NATS has; or let it wait."""
        cdef WaitingRequest waiting = self.waiting  # held: an answer makes the connection forget it
        if waiting is not None and waiting.number == number:
            return waiting.begin()
        self.server.pending.forget(self.session.key, number)
        append_ok(self.buffer_of(number), self.persistence(number), self.requests.take_cors(number))
        return self.send_in_order(number)

    cdef int fail(self, uint32_t number, int status, str phrase, bint with_body, bytes fields=None) except -1:
        """Answer a request with an error, if it is open."""
        if not self.requests.is_open(number):
            return 0
        if self.waiting is not None and self.is_taken_by_waiting(number, NULL):
            return 0
        self.server.pending.forget(self.session.key, number)
        append_error(
            self.buffer_of(number), status, phrase, self.persistence(number), with_body, fields,
            self.requests.take_cors(number),
        )
        return self.send_in_order(number)

    cdef int send_in_order(self, uint32_t number) except -1:
        """Send the response in `buffer_of(number)` and those that follow it, or keep it until its turn. Hot path."""
        cdef Buffer scratch = self.server.scratch
        if number != self.requests.first:
            self.requests.keep_response(number, scratch.copy())
            scratch.clear(BUFFER_KEEP)
            return 0
        self.requests.complete_first(self.output)
        self.transport.wake()
        if self.state == READING:
            return self.end_of_input() if self.input_ended else 0
        if self.requests.count == 0 and not self.is_serving():
            return self.finish()
        if self.requests.count == 0 and self.state == CONTINUE_DUE:
            return self.end_of_input() if self.input_ended else self.send_continue()
        # Not at each response: what remains of the input is moved to the front of its buffer every time.
        if self.state == PIPELINE_FULL and self.requests.count <= self.server.pipelined_max // 2:
            self.move(READING)
            self.transport.resume_reading()
            return self.parse_input()
        return 0

    cdef int end_of_input(self) except -1:
        """Close after the responses that are due (RFC 9112 section 9.6): the client has closed its sending side.

        A request does not wait for a push any more: most likely the client is gone, and the push would be lost.
        """
        cdef WaitingRequest waiting = self.waiting  # held, as in `acknowledge`
        self.input_ended = True
        if waiting is not None and waiting.begun:
            return waiting.expire()
        if self.state == LINGERING:
            return self.finish()
        if self.requests.count or not self.is_serving() or self.state in (PIPELINE_FULL, AUTHENTICATING):
            return 0
        return self.finish()

    cdef int end(self, str reason) except -1:
        """Read nothing more, end a wait for a push, and close after the responses that are due; `reason` is a code."""
        cdef WaitingRequest waiting = self.waiting  # held, as in `acknowledge`
        cdef bint serving = self.is_serving()
        self.is_ending = True
        if serving:
            self.server.counters.count("closed", reason)
            self.identified = False
            self.move(FINISHING)
        if waiting is not None and waiting.begun:
            return waiting.expire()
        return self.finish() if serving and self.requests.count == 0 else 0

    cdef int finish(self) except -1:
        """Close: no response is due any more. Let a client that is still sending read the last one first."""
        if self.state == REFUSING and not self.input_ended:
            return self.move(LINGERING)
        self.move(CLOSED)
        return self.transport.close()

    cdef int lost(self) except -1:
        """Forget the open requests: nobody reads their responses."""
        cdef uint32_t i
        if self.state != CLOSED:
            self.move(CLOSED)
        for i in range(self.requests.count):
            self.server.pending.forget(self.session.key, (self.requests.first + i) & SEQUENCE_MASK)
        if self.waiting is not None:
            self.stop_waiting((<WaitingRequest>self.waiting).number)
        self.requests.clear()
        self.input.clear(0)
        self.server.input_memory.reserve(self, 0)
        (<HttpSession>self.session).connection = None
        self.server.sessions.close(self.session)
        self.server.connections.discard(self)
        self.parser.body.clear(0)
        return 0

    # ------------------------------------------------------------ time

    cdef bint is_receiving(self) noexcept:
        """Return whether a part of a request is here, and the rest is not."""
        return self.state < PIPELINE_FULL and (self.parser.phase != HEAD or self.input.size > 0)

    cdef Wait current_wait(self) noexcept:
        """Return what the connection waits for."""
        if self.state == LINGERING:
            return END_OF_CLIENT
        if self.is_receiving():
            return REST_OF_REQUEST
        if self.requests.count or self.state == AUTHENTICATING:
            return ANSWER
        return NEXT_REQUEST if self.requests.first else FIRST_REQUEST

    cdef int check(self, double now) except -1:
        """Close a connection whose client is too slow or idle. Answers of extensions expire elsewhere."""
        cdef uint32_t number = self.requests.first + self.requests.count
        cdef Wait wait = self.current_wait()
        cdef WaitingRequest waiting = self.waiting  # held, as in `acknowledge`
        cdef double seconds
        if waiting is not None:
            waiting.check(now)
        if self.state == CLOSED:
            return 0
        seconds = waited(&self.clock, wait, number, now, self.take_unread_time())
        if wait == REST_OF_REQUEST and seconds > self.server.read_timeout:
            if self.parser.discarding:
                return self.end(TOO_SLOW.reason)  # the request has its response
            return self.refuse_and_close(TOO_SLOW, False)
        if (wait == NEXT_REQUEST and seconds > self.server.keep_alive_timeout) \
                or (wait == FIRST_REQUEST and seconds > self.server.read_timeout):
            self.server.counters.count("closed", "http_idle")
            return self.finish()
        if wait == END_OF_CLIENT and seconds > LINGER_TIME:
            return self.finish()
        return 0
