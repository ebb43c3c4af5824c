"""The way up: a device's message becomes ClientData in the link's output. Common to all transports.

A message of a known path is one route lookup and one write into the link's block. A path seen for the first time is
checked against the configuration, and its endpoint token resolved: the messages of that token wait in order, in a
bounded queue of their session, while others pass.

Source: 1/KP; 4/ESP, ClientData.
"""

from libc.string cimport memcmp, memcpy

from kaa_gateway.bus.durable cimport ONCE, PROMPT, UNTIL_STORED, Effort
from kaa_gateway.clock cimport monotonic, now_ms
from kaa_gateway.kp.correlation cimport AT_MOST_ONCE, REQUEST
from kaa_gateway.kp.resource_path cimport is_kp1, split_request_id
from kaa_gateway.wire.esp cimport CORRELATION_ID_SIZE, HEAD_SIZE_MAX, TAIL_OVERHEAD_MAX, put_head, put_tail
from kaa_gateway.wire.text cimport put_padded

from http import HTTPStatus

import structlog

from kaa_gateway.errors import IdentityError
from kaa_gateway.counters import PROTOCOL_NAMES

log = structlog.get_logger("gateway.kp")

cdef enum:
    FORBIDDEN = 403
    NOT_FOUND = 404
    CONTENT_TOO_LARGE = 413
    TOO_MANY_REQUESTS = 429
    SERVER_ERROR = 500
    UNIDENTIFIED_MAX = 10_000  # tokens of topic filters that wait to be asked for again
    REQUEST_ID_MASK = 0x7FFFFFFF
    SIZE_FIELD = 8  # characters reserved for the payload size in a PUB line: see forward


cdef str WRONG_TENANT = "The application belongs to another tenant"


cdef str phrase_of(int status):
    return HTTPStatus(status).phrase


cdef class WaitingMessage:
    """A copy of a message whose token is being resolved."""

    cdef bytes topic
    cdef bytes payload
    cdef Service service
    cdef uint32_t token
    cdef uint32_t sequence
    cdef int64_t timeout
    cdef bint unanswered
    cdef bint literal
    cdef double came_at   # by clock.monotonic


cdef class Uplink:
    """One worker's way up. `resolve` gives a future of the Identity of (application version, token)."""

    def __init__(
        self, Link link, Router router, Sessions sessions, Correlator correlator, Counters counters, resolve,
        Py_ssize_t waiting_count_max, Py_ssize_t waiting_bytes_max,
    ):
        self.link = link
        self.router = router
        self.sessions = sessions
        self.correlator = correlator
        self.counters = counters
        self.resolve = resolve
        self.waiting_count_max = waiting_count_max
        self.waiting_bytes_max = waiting_bytes_max
        self.blocked = []
        self.unidentified = []

    def set_limits(self, Py_ssize_t waiting_count_max, Py_ssize_t waiting_bytes_max):
        """Other bounds, for what comes from now on."""
        self.waiting_count_max = waiting_count_max
        self.waiting_bytes_max = waiting_bytes_max

    def set_tracer(self, tracer not None):
        """Trace some messages: `tracer` says which, and is told what becomes of them."""
        self.tracer = tracer
        self.until_traced = tracer.gap()

    cdef Outcome publish(self, Session session, const Message* message) except *:
        """Take a message of a device. Hot path; the slices of the message are borrowed for the call."""
        cdef Py_ssize_t size
        cdef int32_t request_id = 0
        cdef bint has_request_id
        cdef Route route
        cdef Attachment attachment = None
        if self.link.full:
            return self.hold_off(session)
        size = message.topic.size
        has_request_id = not message.literal and split_request_id(message.topic, &size, &request_id)
        if session.last_route is not None:
            route = <Route>session.last_route
            if len(route.key) == size and memcmp(<const char*>route.key, message.topic.data, size) == 0 \
                    and session.waiting is None:
                if route.binding.lane is not None and cannot_take(route.binding.lane, message):
                    return self.hold_off(session)
                self.forward(session, route, message, has_request_id, request_id)
                return FORWARDED
        routes = self.router.cache(message.literal)
        route = routes.find(message.topic.data, size)
        if route is None and has_request_id:
            # A token of digits is found by its position: it ends the topic of a path that has no request ID.
            route = routes.find(message.topic.data, message.topic.size)
            has_request_id = False
        if route is None:
            return self.route_anew(session, message, None)
        if session.tenant is not None and session.tenant != route.tenant:
            return self.refuse(session, message, has_request_id, FORBIDDEN, WRONG_TENANT, "wrong_tenant")
        if route.binding.lane is not None and cannot_take(route.binding.lane, message):
            return self.hold_off(session)
        if route.endpoint is not None:
            key = (route.app_version, route.token)
            if session.waiting is not None and key in session.waiting:
                return self.wait(session, key, message)
            if session.attached is not None:
                attachment = session.attached.get(key)
            if attachment is None:
                if not self.is_current(route):
                    return self.wait(session, key, message)
                attachment = self.sessions.attach(
                    session, route.endpoint, route.token, route.app_version, route.identity
                )
                if attachment is None:
                    return self.refuse(
                        session, message, has_request_id, TOO_MANY_REQUESTS, "Too many endpoints on one connection",
                        "too_many_endpoints",
                    )
            elif attachment.endpoint is not route.endpoint:
                return self.route_anew(session, message, attachment)
            else:
                route.endpoint.sessions[session] = attachment
                self.sessions.hear(session, attachment)
        if not session.closed:
            session.last_route = route
            session.current = attachment
        self.forward(session, route, message, has_request_id, request_id)
        return FORWARDED

    cdef int forward(
        self, Session session, Route route, const Message* message, bint has_request_id, int32_t request_id
    ) except -1:
        """Write the PUB with its ClientData where the link's block ends. Hot path."""
        cdef bytes head = route.binding.head
        cdef bytes middle = route.middle
        cdef Py_ssize_t head_size = len(head), middle_size = len(middle), room, size
        cdef uint8_t* start
        cdef uint8_t* datum
        cdef uint8_t* at
        cdef uint8_t[CORRELATION_ID_SIZE] correlation_id
        cdef uint32_t sequence = message.sequence
        if route.binding.lane is not None:
            return self.forward_durably(session, route, message, has_request_id, request_id)
        room = HEAD_SIZE_MAX + middle_size + TAIL_OVERHEAD_MAX + message.payload.size
        if room > self.link.payload_max:
            self.refuse(
                session, message, has_request_id, CONTENT_TOO_LARGE, "Payload is larger than NATS accepts",
                "payload_too_large",
            )
            return 0
        if message.service == REQUEST:
            # Extensions answer only what carries a request ID.
            if message.unanswered:
                has_request_id = False
            elif not has_request_id:
                has_request_id = True
                request_id = <int32_t>(message.sequence & REQUEST_ID_MASK)
        if self.link.block.size == 0:
            self.now = now_ms()  # once a tick
        start = self.link.reserve(head_size + SIZE_FIELD + 2 + room + 2)
        # The size stands before the datum in the PUB line, but is known only after it. NATS reads a decimal with
        # leading zeros as well, so the datum is written first, behind a field of fixed width.
        memcpy(start, <const char*>head, head_size)
        datum = start + head_size + SIZE_FIELD + 2
        if sequence == BY_ATTACHMENT:
            sequence = 0 if session.current is None else session.current.number
        self.correlator.put(correlation_id, session.key, message.service, sequence)
        at = put_head(datum, <const char*>correlation_id, self.now, message.timeout)
        memcpy(at, <const char*>middle, middle_size)
        at = put_tail(at + middle_size, has_request_id, request_id, message.payload.data, message.payload.size)
        size = at - datum
        if self.until_traced and self.is_traced():
            # Written again, with a header, in place of this, which is not committed.
            self.publish_traced(session, route, message, has_request_id, correlation_id, datum, size)
        else:
            put_padded(start + head_size, size, SIZE_FIELD)
            memcpy(datum - 2, b"\r\n", 2)
            memcpy(at, b"\r\n", 2)
            self.link.commit(at + 2 - start)
        route.version_counters.count_in(session.protocol, message.payload.size)
        if route.endpoint is not None:
            route.endpoint.traffic.messages_in += 1
            route.endpoint.traffic.bytes_in += <uint64_t>message.payload.size
        if message.token:
            self.link.acknowledge_later(session.key, message.token)
        return 0

    cdef int forward_durably(
        self, Session session, Route route, const Message* message, bint has_request_id, int32_t request_id
    ) except -1:
        """Write ClientData into the lane of a durable extension instance. Hot path."""
        cdef DurableLane lane = route.binding.lane
        cdef bytes middle = route.middle
        cdef Py_ssize_t middle_size = len(middle)
        cdef Py_ssize_t room = HEAD_SIZE_MAX + middle_size + TAIL_OVERHEAD_MAX + message.payload.size
        cdef uint8_t* datum
        cdef uint8_t* at
        cdef uint8_t[CORRELATION_ID_SIZE] correlation_id
        cdef uint32_t sequence = message.sequence
        cdef Effort effort = PROMPT
        if room + lane.datum_offset > self.link.payload_max:
            self.refuse(
                session, message, has_request_id, CONTENT_TOO_LARGE, "Payload is larger than NATS accepts",
                "payload_too_large",
            )
            return 0
        if message.service == REQUEST:
            if message.unanswered:
                has_request_id = False
            elif not has_request_id:
                has_request_id = True
                request_id = <int32_t>(message.sequence & REQUEST_ID_MASK)
        else:
            effort = ONCE if message.service == AT_MOST_ONCE else UNTIL_STORED
        datum = lane.reserve(room)
        if sequence == BY_ATTACHMENT:
            sequence = 0 if session.current is None else session.current.number
        self.correlator.put(correlation_id, session.key, message.service, sequence)
        at = put_head(datum, <const char*>correlation_id, now_ms(), message.timeout)
        memcpy(at, <const char*>middle, middle_size)
        at = put_tail(at + middle_size, has_request_id, request_id, message.payload.data, message.payload.size)
        route.version_counters.count_in(session.protocol, message.payload.size)
        lane.commit(at - datum, correlation_id, session.key, message.token, effort)
        if self.until_traced and self.is_traced():
            self.trace_durably(session, route, message, has_request_id, correlation_id)
        return 0

    cdef bint is_traced(self) noexcept:
        """Whether it is the turn of the message that is forwarded now. Hot path, while tracing is on."""
        self.until_traced -= 1
        return self.until_traced == 0

    cdef object begin_trace(
        self, Session session, Route route, const Message* message, bint has_request_id, const uint8_t* correlation_id
    ):
        """The trace of a message whose turn it is, or None if there are too many; and when it is the next one's."""
        self.until_traced = self.tracer.gap()
        return self.tracer.begin(
            correlation_id[:CORRELATION_ID_SIZE], PROTOCOL_NAMES[<int>session.protocol], route.app_version.decode(),
            route.binding.extension.decode(), message.payload.size, has_request_id, self.waited,
        )

    cdef int publish_traced(
        self, Session session, Route route, const Message* message, bint has_request_id,
        const uint8_t* correlation_id, const uint8_t* written, Py_ssize_t size,
    ) except -1:
        """Publish ClientData with the context of its trace in the header, if NATS takes that much."""
        cdef bytes header = b"", datum = written[:size]  # a copy: what is written stands where the publication goes
        trace = self.begin_trace(session, route, message, has_request_id, correlation_id)
        if trace is not None:
            header = b"NATS/1.0\r\n" + trace.field + b"\r\n"
            if len(header) + size > self.link.payload_max:
                header = b""
        self.link.publish(
            route.binding.head, Slice(<const uint8_t*>header, len(header)), Slice(<const uint8_t*>datum, size)
        )
        return 0 if trace is None else self.link.trace(trace)

    cdef int trace_durably(
        self, Session session, Route route, const Message* message, bint has_request_id, const uint8_t* correlation_id
    ) except -1:
        """The same for the message that its lane was given last."""
        trace = self.begin_trace(session, route, message, has_request_id, correlation_id)
        if trace is not None:
            route.binding.lane.trace_last(trace, trace.field)
        return 0

    cdef Outcome hold_off(self, Session session) except *:
        """The link, or a lane, has no room: the session is told when it has."""
        if not session.resume_wanted:
            session.resume_wanted = True
            self.blocked.append(session)
        return BUSY

    cdef bint is_current(self, Route route) except -1:
        """Whether a session that comes with the token of a cached route may use it without asking the provider."""
        return route.revocations == route.endpoint.revocations and monotonic() < route.identity.valid_until

    cdef Outcome route_anew(self, Session session, const Message* message, Attachment attachment) except *:
        """A path that has no route, or none that is good. `attachment` is what its token was just resolved to."""
        cdef Target target
        cdef Route route
        cdef Py_ssize_t size
        cdef int32_t request_id = 0
        cdef str phrase
        if not is_kp1(message.topic):
            self.counters.count("ignored", "not_kp1")
            self.counters.unrouted.count_in(session.protocol, message.payload.size)
            if message.token:
                self.link.acknowledge_later(session.key, message.token)
            return IGNORED
        phrase = self.router.read_target(message.topic, message.literal, &target)
        if phrase is not None:
            return self.refuse(
                session, message, split_request_id(message.topic, &size, &request_id), NOT_FOUND, phrase, "no_route"
            )
        split_request_id(message.topic, &size, &request_id)
        if self.is_foreign(session, target.app_version.data[:target.app_version.size]):
            return self.refuse(
                session, message, target.has_request_id, FORBIDDEN, WRONG_TENANT, "wrong_tenant"
            )
        if target.endpoint_aware and attachment is None:
            key = (target.app_version.data[:target.app_version.size], target.token.data[:target.token.size])
            if session.attached is not None:
                attachment = session.attached.get(key)
            if attachment is None or (session.waiting is not None and key in session.waiting):
                return self.wait(session, key, message)
            self.sessions.hear(session, attachment)
        route = self.router.make(message.topic, message.literal, &target, attachment)
        route.version_counters = self.counters.counters_of(route.app_version)
        if attachment is not None:
            attachment.endpoint.version_counters = route.version_counters
        if not session.closed:
            session.last_route = route
            session.current = attachment
        self.forward(session, route, message, target.has_request_id, request_id)
        return FORWARDED

    cdef bint is_foreign(self, Session session, bytes app_version) except -1:
        """Whether a session's client belongs to another tenant than an application version."""
        return session.tenant is not None and session.tenant != self.router.tenants.get(app_version)

    cdef Outcome refuse(
        self, Session session, const Message* message, bint has_request_id, int status, str phrase, str reason
    ) except *:
        """Count a message that goes nowhere, tell its session, and acknowledge it in its turn."""
        self.counters.count("refused", reason)
        self.counters.unrouted.count_in(session.protocol, message.payload.size)
        if message.token:
            self.link.acknowledge_later(session.key, message.token)
        session.fail(message.topic, message.service, has_request_id, message.sequence, status, phrase)
        return REFUSED

    # ------------------------------------------------------------ identity

    cdef Outcome wait(self, Session session, tuple key, const Message* message) except *:
        """Keep a copy of a message until the identity of its token is known."""
        cdef WaitingMessage copy
        cdef Py_ssize_t size = message.topic.size + message.payload.size
        if session.waiting_count >= self.waiting_count_max or (
                session.waiting_count and session.waiting_bytes + size > self.waiting_bytes_max):
            session.resume_wanted = True
            return BUSY
        if session.waiting is None or key not in session.waiting:
            self.start_resolving(session, key)
        copy = WaitingMessage()
        copy.topic = message.topic.data[:message.topic.size]
        copy.payload = message.payload.data[:message.payload.size]
        copy.service = message.service
        copy.token = message.token
        copy.sequence = message.sequence
        copy.timeout = message.timeout
        copy.unanswered = message.unanswered
        copy.literal = message.literal
        copy.came_at = monotonic()
        session.waiting[key].append(copy)
        session.waiting_count += 1
        session.waiting_bytes += size
        self.waiting_messages += 1
        return TAKEN

    cdef int start_resolving(self, Session session, tuple key) except -1:
        if session.waiting is None:
            session.waiting = {}
        session.waiting[key] = []
        future = self.resolve(key[0].decode(), key[1].decode())
        future.add_done_callback(lambda done: self.resolved(session, key, done))
        return 0

    def resolved(self, Session session not None, tuple key, future):
        """The identity of a token is known, or refused: let the messages go that waited for it."""
        cdef Endpoint endpoint = None
        cdef Attachment attachment = None
        cdef WaitingMessage copy
        cdef Message message
        cdef Py_ssize_t size
        cdef int32_t request_id
        cdef bint has_request_id
        # Taken out first, and empty queues left as None, which is what the hot path looks at.
        waiting = session.waiting.pop(key)
        if not session.waiting:
            session.waiting = None
        try:
            identity = future.result()
            if key[0] not in self.router.app_versions:
                raise IdentityError(NOT_FOUND, "no_route", "Unknown application version")
            endpoint = self.sessions.endpoint(identity.endpoint_id.encode())
            endpoint.version_counters = self.counters.counters_of(key[0])
            attachment = self.sessions.attach(session, endpoint, key[1], key[0], identity)
            if attachment is None:
                raise IdentityError(TOO_MANY_REQUESTS, "too_many_endpoints", "Too many endpoints on one connection")
        except IdentityError as error:
            refusal = error
        else:
            refusal = None
        if session.sought is not None and key in session.sought:
            self.settle(session, key, refusal)
        for copy in waiting:
            session.waiting_count -= 1
            self.waiting_messages -= 1
            session.waiting_bytes -= len(copy.topic) + len(copy.payload)
            message.topic = Slice(<const uint8_t*>copy.topic, len(copy.topic))
            message.payload = Slice(<const uint8_t*>copy.payload, len(copy.payload))
            message.service = copy.service
            message.token = copy.token
            message.sequence = copy.sequence
            message.timeout = copy.timeout
            message.unanswered = copy.unanswered
            message.literal = copy.literal
            if refusal is None:
                self.waited = monotonic() - copy.came_at
                self.route_anew(session, &message, attachment)
                self.waited = 0
            else:
                has_request_id = split_request_id(message.topic, &size, &request_id)
                self.refuse(
                    session, &message, has_request_id, refusal.status, refusal.detail or phrase_of(refusal.status),
                    refusal.reason,
                )
        if endpoint is not None:
            self.sessions.release(endpoint)
        if session.resume_wanted and not session.closed:
            session.resume_wanted = False
            session.resume()

    cdef int identify(self, Session session, Slice topic_filter) except -1:
        """Let a session speak for the endpoint whose token a topic filter names, if it names one."""
        cdef tuple key = self.router.named_by_filter(topic_filter)
        if key is None:
            return 0
        if (session.attached is not None and key in session.attached) \
                or (session.waiting is not None and key in session.waiting):
            return 0
        if session.waiting is not None and len(session.waiting) >= self.waiting_count_max:
            self.counters.count("dropped", "too_many_identifications")
            return 0
        if self.is_foreign(session, key[0]):
            self.counters.count("refused", "wrong_tenant")
            return 0
        if session.sought is None:
            session.sought = set()
        session.sought.add(key)
        return self.start_resolving(session, key)

    cdef int settle(self, Session session, tuple key, refusal) except -1:
        """The provider has told of a token that a topic filter names, or could not, and is asked again later."""
        if refusal is None or refusal.status < SERVER_ERROR or session.closed:
            session.sought.discard(key)
            if not session.sought:
                session.sought = None
        elif len(self.unidentified) >= UNIDENTIFIED_MAX:
            session.sought.discard(key)
            self.counters.count("dropped", "too_many_identifications")
        else:
            self.unidentified.append((session, key))
        return 0

    def retry_identifications(self):
        """Call from time to time: asks again for what topic filters name, so that pushes find their devices."""
        cdef Session session
        unidentified = self.unidentified
        self.unidentified = []
        for session, key in unidentified:
            if session.closed or session.sought is None:
                continue
            if session.waiting is not None and key in session.waiting:
                continue
            if session.attached is not None and key in session.attached:
                self.settle(session, key, None)
            else:
                self.start_resolving(session, key)

    # ------------------------------------------------------------ backlog

    cdef int resume_blocked(self) except -1:
        """The link takes messages again."""
        cdef Session session
        blocked = self.blocked
        self.blocked = []
        for session in blocked:
            session.resume_wanted = False
            if not session.closed:
                try:
                    session.resume()
                except Exception:
                    # The sessions after it must not stay blocked for that.
                    log.exception("a session could not go on")
        return 0

    cdef int republish(self, bytes head, const Publication* publication) except -1:
        """Publish a ClientData that we have encoded before to another subject."""
        return self.link.publish(head, publication.header, publication.payload)


cdef inline bint cannot_take(DurableLane lane, const Message* message) noexcept:
    """Whether a lane has no room, or a stream that stores nothing would keep a request waiting. Hot path."""
    return lane.full or (lane.stalled and message.service == REQUEST)
