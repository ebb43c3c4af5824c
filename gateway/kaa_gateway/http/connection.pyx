"""The HTTP/1.1 server: a POST below /kp1 is a request to an extension, whose answer is its response.

A connection is a session. Its requests are numbered; responses leave in the order of the requests, whatever the order
in which extensions answer. What lives elsewhere: reading requests (http_parser.pyx), their URLs (http_target.pyx),
writing responses (http_response.pyx), and the deadlines of requests (kaa_gateway.kp.pending).

Source: 1/KP and its HTTP binding; RFC 9112, RFC 9110.
"""

import structlog

from kaa_gateway.kp.correlation cimport REQUEST, SEQUENCE_MASK, Service
from kaa_gateway.counters cimport HTTP
from kaa_gateway.kp.sessions cimport Delivery, Endpoint
from kaa_gateway.kp.uplink cimport BUSY, IGNORED, Message, Outcome
from kaa_gateway.http.parser cimport COMPLETE, HEAD, HEADED, REFUSED
from kaa_gateway.http.response cimport (
    BASIC_CHALLENGE, CLOSE, KEEP_ALIVE, PERSISTENT, append_continue, append_error, append_response, append_taken,
)
from kaa_gateway.http.target cimport read_target, wants_no_answer
from kaa_gateway.net.transport cimport INPUT_FREE, InputMemory, Transport
from kaa_gateway.wire.buffer cimport Slice

from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.clients import Client, Presentation, basic_credentials

log = structlog.get_logger("gateway.http")

cdef enum:
    TAIL_KEEP = 4096        # bytes of buffer that a connection keeps between incomplete heads
    BAD_REQUEST = 400
    TAKEN_TOKEN = 0x10000000  # with the number of the request, what Session.acknowledge is called with

# Seconds that a client which is still sending has to read a refusal: closing at once would reset it (RFC 9112 9.6).
cdef double LINGER_TIME = 2.0

# Refusals of requests that are well-formed, so that whoever sends them deserves to read why.
cdef tuple LINGERING_STATUSES = (413, 414, 417, 431)

# (status, reason code, reason phrase)
cdef tuple BAD_TARGET = (BAD_REQUEST, "http_target", "Malformed request target")
cdef tuple NOT_FOUND = (404, "http_not_kp1", "Resource path must be kp1/<application version>/<extension instance>/...")
cdef tuple METHOD_NOT_ALLOWED = (405, "http_method", "Only POST is allowed")
cdef tuple NO_CREDENTIALS = (401, "credentials_missing", "Credentials are required")
cdef tuple BAD_CREDENTIALS = (401, "credentials_rejected", None)
cdef tuple TOO_SLOW = (408, "http_read_timeout", "The request did not arrive in time")
cdef tuple NATS_AWAY = (503, "nats_away", "NATS is not connected")
cdef tuple OVERLOADED = (503, "backlog", "Too many messages wait to be forwarded")
cdef tuple NO_INPUT_MEMORY = (503, "input_memory_full", "Too many bytes of unfinished requests are held")
cdef tuple TOO_MANY_PENDING = (503, "too_many_pending_requests", "Too many requests wait for an answer")


cdef bytes challenge_of(tuple refusal):
    """How a client that must say who it is is asked to, if that is what a refusal is about."""
    return BASIC_CHALLENGE if refusal[0] == 401 else None


cdef tuple refusal_of(error):
    """What a client that is not admitted is told."""
    return error.status, error.reason, error.detail or None


cdef class HttpServer:
    """What the HTTP connections of a worker share. `settings` are kaa.kpc.transports.http of the configuration."""

    def __init__(
        self, loop, Uplink uplink not None, Sessions sessions not None, PendingRequests pending not None,
        Counters counters not None, authenticator, settings,
    ):
        self.loop = loop
        self.uplink = uplink
        self.sessions = sessions
        self.pending = pending
        self.counters = counters
        self.authenticator = authenticator
        self.authenticates = settings.client_authentication != "off"
        self.demands_credentials = settings.client_authentication == "required"
        self.limits = RequestLimits(settings.max_body_size, settings.max_header_size, settings.max_url_length)
        self.path_prefix = settings.path_prefix.encode()
        self.read_timeout = settings.read_timeout
        self.keep_alive_timeout = settings.keep_alive_timeout
        self.pipelined_max = settings.pipelined_requests
        self.connections = set()
        self.input_memory = InputMemory()
        self.path = Buffer()
        self.scratch = Buffer()

    def limit(self, InputMemory input_memory not None):
        """Bound the memory of incomplete requests, together with other transports; once, before the start."""
        self.input_memory = input_memory

    def connect(self, Transport transport not None):
        """The core of a new connection."""
        cdef HttpConnection connection = HttpConnection()
        cdef HttpSession session = HttpSession()
        session.counters = self.counters
        session.protocol = HTTP
        session.connection = connection
        session.connectionless = True
        connection.server = self
        connection.transport = transport
        connection.session = session
        connection.parser = RequestParser(self.limits)
        connection.parser.shows_heads = self.authenticates
        connection.tail = Buffer()
        connection.wait_start = self.loop.time()
        self.sessions.open(session)
        self.connections.add(connection)
        return connection

    def begin_drain(self):
        """End idle connections now, and the others after the responses that they wait for."""
        cdef HttpConnection connection
        self.draining = True
        for connection in list(self.connections):
            connection.drain()


cdef class HttpSession(Session):
    """The session of one connection. It can be answered, but not pushed to."""

    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1:
        if self.connection is None:
            return 0
        return self.connection.fail(sequence, status, reason_phrase, True)

    cdef int acknowledge(self, uint32_t token) except -1:
        """NATS has a request that wants no answer of its extension."""
        cdef uint32_t number = token & SEQUENCE_MASK
        if self.connection is None or not self.connection.is_open(number):
            return 0
        return self.connection.confirm(number)

    cdef int end(self, str reason) except -1:
        return 0 if self.connection is None else self.connection.end(reason)

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Hot path."""
        if self.connection is None or not delivery.correlated or delivery.service != REQUEST \
                or not self.connection.is_open(delivery.sequence):
            return False
        self.connection.respond(delivery.sequence, delivery.data)
        return True


cdef class HttpConnection(ProtocolCore):
    """The server's side of one connection."""

    # ------------------------------------------------------------ bytes

    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Handle the requests in these bytes, and keep what cannot be handled yet. Hot path."""
        cdef Py_ssize_t taken
        if self.state != SERVING:
            return 0
        if self.tail.size or self.paused or self.authenticating:
            self.tail.append(data, size)
            return self.count_input() if self.paused or self.authenticating else self.take_tail()
        taken = self.take(data, size)
        if taken < size:
            self.tail.append(data + taken, size - taken)
        return self.count_input()

    cdef int count_input(self) except -1:
        """What is kept of requests has grown or shrunk. Hot path."""
        cdef Py_ssize_t size = self.tail.capacity + self.parser.body.capacity
        if (size <= INPUT_FREE and self.input_counted == 0) or self.server.input_memory.take(self, size):
            return 0
        self.tail.clear(0)
        if self.paused or self.authenticating:
            # The body in the parser is that of a request which is taken.
            return self.end("input_memory_full")
        self.parser.body.clear(0)
        return self.end_with(NO_INPUT_MEMORY, True)

    cdef int take_tail(self) except -1:
        # Requests are handled while the tail's bytes are borrowed: nothing appends to it meanwhile.
        cdef Py_ssize_t taken = self.take(self.tail.data, self.tail.size)
        if taken == self.tail.size:
            self.tail.clear(TAIL_KEEP)
        else:
            self.tail.consume(taken)
        return self.count_input()

    cdef Py_ssize_t take(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Handle requests until the rest is no whole one, or as many wait as may: the bytes taken. Hot path."""
        cdef Py_ssize_t at = 0
        while at < size and not self.authenticating:
            if self.count >= self.server.pipelined_max and self.parser.phase == HEAD:
                self.paused = True
                self.transport.pause_reading()
                break
            at += self.parser.parse(data + at, size - at)
            if self.parser.progress == COMPLETE:
                self.on_request()
            elif self.parser.progress == HEADED:
                self.on_head(at == size)
            elif self.parser.progress == REFUSED and self.parser.discarding:
                self.end(self.parser.refusal[1])  # it was answered before
            elif self.parser.progress == REFUSED:
                self.end_with(self.parser.refusal, self.parser.refusal[0] in LINGERING_STATUSES)
            else:
                break
            if self.state != SERVING:
                return size
        return at

    # ------------------------------------------------------------ requests

    cdef uint32_t open_request(self) except? 0:
        """The number of a new request, whose response is due after those of the others."""
        cdef uint32_t number = (self.first + self.count) & SEQUENCE_MASK
        self.count += 1
        self.taken += 1
        if not self.server.demands_credentials:
            self.admitted = True
        return number

    cdef int on_request(self) except -1:
        """A request is here. Hot path."""
        cdef tuple refusal
        if self.parser.discarding:
            return self.parser.next_request()  # it was answered before
        refusal = self.judge()
        if refusal is None and self.is_strange():
            return self.authenticate(False)
        return self.settle(refusal)

    cdef int settle(self, tuple refusal) except -1:
        """Forward the request in the parser, whose resource path has been read, or refuse it. Hot path."""
        cdef uint32_t number = self.open_request()
        self.continue_owed = False
        if not self.parser.keep_alive or self.server.draining:
            self.state = FINISHING
        if refusal is None:
            self.publish(number)
        else:
            self.refuse(number, refusal)
        return self.parser.next_request()

    cdef int on_head(self, bint body_is_late) except -1:
        """A head is here and its body is not: its sender must say who it is first, or waits to be asked for it."""
        cdef tuple refusal
        cdef bint is_strange = self.is_strange()
        if not is_strange and not self.parser.expects_continue:
            return 0
        refusal = self.judge()
        if refusal is not None:
            return self.refuse_body(refusal)
        return self.authenticate(body_is_late) if is_strange else self.ask_for_body(body_is_late)

    cdef int refuse_body(self, tuple refusal) except -1:
        """Answer a request by its head, and keep nothing of the body, which its sender may be sending already."""
        if self.parser.expects_continue or not self.parser.keep_alive or self.server.draining:
            return self.end_with(refusal, True)
        self.refuse(self.open_request(), refusal)
        return self.parser.discard()

    cdef int ask_for_body(self, bint body_is_late) except -1:
        """The body is welcome, if its sender waits to hear so (RFC 9110 section 10.1.1)."""
        if self.parser.expects_continue and body_is_late:
            self.continue_owed = True
            if self.count == 0:
                self.send_continue()
        return 0

    cdef bint is_strange(self) except -1:
        """Whether the request in the parser shows other credentials than those that this connection is known by."""
        return self.server.authenticates and not (
            self.recognised and self.parser.authorization == self.authorization
        )

    cdef int authenticate(self, bint body_is_late) except -1:
        """Ask whose credentials a request presents, which the connection's requests before it did not."""
        cdef bytes authorization = self.parser.authorization
        try:
            user_name, password = basic_credentials(authorization)
        except ValueError:
            return self.conclude(BAD_CREDENTIALS, body_is_late)
        self.recognised = False
        self.parser.shows_heads = True
        try:
            known = self.server.authenticator.authenticate(
                Presentation("http", user_name, password, self.transport.certificate)
            )
        except IdentityError as error:
            return self.conclude(refusal_of(error), body_is_late)
        if isinstance(known, Client):
            return self.recognise(authorization, known, body_is_late)
        self.authenticating = True
        self.transport.pause_reading()
        known.add_done_callback(lambda done: self.authenticated(authorization, done))
        return 0

    def authenticated(self, bytes authorization, future):
        """The client of the request in the parser is known, or refused; what follows is taken."""
        cdef bint body_is_late = self.tail.size == 0
        if not self.authenticating or self.state != SERVING:
            # Looked at all the same: asyncio complains of failures that nobody has seen.
            future.exception()
            return
        self.authenticating = False
        try:
            client = future.result()
        except IdentityError as error:
            self.conclude(refusal_of(error), body_is_late)
        else:
            self.recognise(authorization, client, body_is_late)
        if self.state == SERVING and not self.paused:
            self.transport.resume_reading()
            self.take_tail()

    cdef int recognise(self, bytes authorization, client, bint body_is_late) except -1:
        """The client of the request in the parser is known: from now on this authorization needs no question."""
        self.recognised = self.admitted = True
        self.parser.shows_heads = False
        self.authorization = authorization
        self.session.principal = client.principal
        self.session.tenant = client.tenant
        self.session.last_route = None
        # Read anew: the path is kept for one request of the worker at a time.
        return self.conclude(self.judge(), body_is_late)

    cdef int conclude(self, tuple refusal, bint body_is_late) except -1:
        """Its client is known, or refused: go on with the request in the parser, of which only the head may be here."""
        if self.parser.progress == COMPLETE:
            return self.settle(refusal)
        return self.ask_for_body(body_is_late) if refusal is None else self.refuse_body(refusal)

    cdef tuple judge(self):
        """Read the resource path of a request; why it cannot be forwarded, or None. Hot path."""
        cdef int status
        if not self.parser.is_post:
            return METHOD_NOT_ALLOWED
        status = read_target(self.parser.target, self.server.path_prefix, self.server.path)
        if status:
            return BAD_TARGET if status == BAD_REQUEST else NOT_FOUND
        if not self.server.uplink.link.ready:
            return NATS_AWAY
        if self.server.demands_credentials and self.parser.authorization is None \
                and self.transport.certificate is None:
            return NO_CREDENTIALS
        return None

    cdef int publish(self, uint32_t number) except -1:
        """Forward the request in the parser, whose resource path has been read. Hot path."""
        cdef HttpServer server = self.server
        cdef Buffer body = self.parser.body
        cdef Message message
        cdef Outcome outcome
        if not server.pending.add(self.session, number, server.loop.time()):
            return self.refuse(number, TOO_MANY_PENDING)
        message.topic = Slice(server.path.data, server.path.size)
        message.payload = Slice(body.data, body.size)
        message.service = REQUEST
        message.unanswered = wants_no_answer(self.parser.target)
        message.token = TAKEN_TOKEN | number if message.unanswered else 0
        message.sequence = number
        message.timeout = 0 if message.unanswered else <int64_t>(1000 * server.pending.timeout)
        message.literal = False
        # The session may be told to fail this very request before publish returns.
        outcome = server.uplink.publish(self.session, &message)
        if outcome == BUSY:
            return self.refuse(number, OVERLOADED)
        if outcome == IGNORED:
            return self.refuse(number, NOT_FOUND)
        return 0

    cdef int send_continue(self) except -1:
        self.continue_owed = False
        append_continue(self.output)
        return self.transport.wake()

    cdef int refuse(self, uint32_t number, tuple refusal) except -1:
        """Answer a request with an error of our own."""
        self.server.counters.count("refused", refusal[1])
        return self.fail(number, refusal[0], refusal[2], not self.parser.is_head, challenge_of(refusal))

    cdef int end_with(self, tuple refusal, bint lingers) except -1:
        """Answer what cannot be, or is not, read to its end, and take nothing after it."""
        log.info("connection ends: request refused", status=refusal[0], reason=refusal[1])
        self.server.counters.count("closed", refusal[1])
        self.state = FINISHING
        self.lingers = lingers
        return self.fail(self.open_request(), refusal[0], refusal[2], True, challenge_of(refusal))

    # ------------------------------------------------------------ responses

    cdef bint is_open(self, uint32_t number) noexcept:
        """Whether the request of this number waits for its response. Hot path."""
        return ((number - self.first) & SEQUENCE_MASK) < self.count and (
            self.early is None or number not in self.early
        )

    cdef Persistence persistence(self, uint32_t number) noexcept:
        if self.state == FINISHING and ((self.first + self.count - 1 - number) & SEQUENCE_MASK) == 0:
            return CLOSE
        return KEEP_ALIVE if self.parser.is_http_1_0 else PERSISTENT

    cdef Buffer place(self, uint32_t number):
        """Where the response goes: to the output, or aside until its turn."""
        return self.output if number == self.first else self.server.scratch

    cdef int respond(self, uint32_t number, const ExtensionDataView* data) except -1:
        """Answer an open request with what its extension said. Hot path."""
        self.server.pending.answered(self.session.key, number)
        append_response(self.place(number), data, self.persistence(number))
        return self.answered(number)

    cdef int confirm(self, uint32_t number) except -1:
        """Answer an open request whose message has been taken."""
        self.server.pending.forget(self.session.key, number)
        append_taken(self.place(number), self.persistence(number))
        return self.answered(number)

    cdef int fail(self, uint32_t number, int status, str phrase, bint with_body, bytes fields=None) except -1:
        """Answer a request with an error, if it is open."""
        if not self.is_open(number):
            return 0
        self.server.pending.forget(self.session.key, number)
        append_error(self.place(number), status, phrase, self.persistence(number), with_body, fields)
        return self.answered(number)

    cdef int answered(self, uint32_t number) except -1:
        """A response was put in its place: move on to the next that is due. Hot path."""
        cdef Buffer scratch = self.server.scratch
        if number != self.first:
            if self.early is None:
                self.early = {}
            self.early[number] = scratch.copy()
            scratch.clear(TAIL_KEEP)
            return 0
        self.first = (self.first + 1) & SEQUENCE_MASK
        self.count -= 1
        while self.early is not None and self.first in self.early:
            response = self.early.pop(self.first)
            self.output.append(<const char*>(<bytes>response), len(response))
            self.first = (self.first + 1) & SEQUENCE_MASK
            self.count -= 1
            if not self.early:
                self.early = None
        self.transport.wake()
        if self.count == 0:
            if self.state == FINISHING:
                return self.finish()
            if self.continue_owed:
                self.send_continue()
        # Not for each free place: what is held moves to the front of its buffer every time.
        if self.paused and not self.authenticating and self.state == SERVING \
                and self.count <= self.server.pipelined_max // 2:
            self.paused = False
            self.transport.resume_reading()
            return self.take_tail()
        return 0

    cdef int end(self, str reason) except -1:
        """The client may not go on: take nothing more, and close when it has the answers to what was taken."""
        if self.state != SERVING:
            return 0
        self.server.counters.count("closed", reason)
        self.recognised = False
        self.state = FINISHING
        self.lingers = False
        return 0 if self.count else self.finish()

    cdef int finish(self) except -1:
        """The last response is written."""
        if self.lingers:
            self.state = LINGERING
            return 0
        self.state = ENDED
        return self.transport.close()

    cdef int lost(self) except -1:
        """Nobody reads the answers any more."""
        cdef uint32_t i
        self.state = ENDED
        self.authenticating = False
        for i in range(self.count):
            self.server.pending.forget(self.session.key, (self.first + i) & SEQUENCE_MASK)
        self.count = 0
        self.early = None
        self.tail.clear(0)
        self.server.input_memory.take(self, 0)
        self.session.connection = None
        self.server.sessions.close(self.session)
        self.server.connections.discard(self)
        return self.parser.release()

    # ------------------------------------------------------------ time

    cdef bint is_receiving(self) noexcept:
        """Whether a part of a request is here."""
        return not self.authenticating and (
            self.parser.phase != HEAD or (self.tail.size > 0 and not self.paused)
        )

    cdef Wait current_wait(self) noexcept:
        if self.state == LINGERING:
            return END_OF_CLIENT
        if self.state == SERVING and self.is_receiving():
            return REST_OF_REQUEST
        if self.count or self.authenticating:
            return ANSWER
        return NEXT_REQUEST if self.first else FIRST_REQUEST

    cdef int check(self, double now) except -1:
        """End a connection whose client lets us wait too long; an answer's deadline is not ours."""
        cdef uint32_t number = self.first + self.count
        cdef Wait wait = self.current_wait()
        cdef double waited
        if self.state == ENDED:
            return 0
        if wait != self.wait or number != self.wait_number or self.held:
            self.wait = wait
            self.wait_number = number
            self.wait_start = now
        waited = now - self.wait_start
        if wait == REST_OF_REQUEST:
            if waited > self.server.read_timeout:
                if self.parser.discarding:
                    return self.end(TOO_SLOW[1])  # it was answered before
                self.end_with(TOO_SLOW, False)
        elif (wait == NEXT_REQUEST and waited > self.server.keep_alive_timeout) \
                or (wait == FIRST_REQUEST and waited > self.server.read_timeout) \
                or (wait == END_OF_CLIENT and waited > LINGER_TIME):
            if wait != END_OF_CLIENT:
                self.server.counters.count("closed", "http_idle")
            self.lingers = False
            return self.finish()
        return 0

    cdef int drain(self) except -1:
        if self.state != SERVING or self.is_receiving() or self.authenticating:
            return 0
        self.state = FINISHING
        return 0 if self.count else self.finish()
