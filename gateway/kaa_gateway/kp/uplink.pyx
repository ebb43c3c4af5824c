"""The way up: a device's message becomes ClientData in the link's output. Common to all transports.

A message of a known path costs one route lookup and one write into the link's block. A new path is checked against the
configuration, and its endpoint token is resolved while its messages wait (identification.pyx).

Source: 1/KP; 4/ESP, ClientData.
"""

from libc.string cimport memcmp

from kaa_gateway.bus.durable cimport FAIL_FAST, NO_RETRY, RETRY_UNTIL_STORED, RetryPolicy
from kaa_gateway.clock cimport monotonic, now_ms
from kaa_gateway.kp.correlation cimport AT_MOST_ONCE, REQUEST
from kaa_gateway.kp.identification cimport Identification
from kaa_gateway.kp.quota cimport charge
from kaa_gateway.kp.refusal cimport Refusal
from kaa_gateway.kp.resource_path cimport is_kp1, split_request_id
from kaa_gateway.wire.esp cimport CORRELATION_ID_SIZE, put_head, put_tail
from kaa_gateway.wire.buffer cimport slice_of, to_bytes
from kaa_gateway.wire.nats cimport PUBLICATION_OVERHEAD, begin_publication, end_publication
from kaa_gateway.wire.text cimport put_text

import structlog

log = structlog.get_logger("gateway.kp")

cdef enum:
    FORBIDDEN = 403
    NOT_FOUND = 404
    CONTENT_TOO_LARGE = 413
    RETRY_AFTER_MAX = 3_000_000  # seconds: more than a month
    RESUME_STEPS = 10  # that the resumption of a session counts for: it may have much input
    REQUEST_ID_MASK = 0x7FFFFFFF


cdef str WRONG_TENANT = "The application belongs to another tenant"
cdef str OTHER_TOKEN = "The certificate is not of this endpoint token"


cdef class AliasedTopic:
    """A topic that a device names by a number of its own; its route needs no look-up."""

    def __init__(self, bytes topic not None):
        self.topic = topic


cdef class Uplink:
    """The way up of one worker. `resolve` is for its Identification."""

    def __init__(
        self, Link link, Router router, Sessions sessions, Correlator correlator, Counters counters, resolve,
        Py_ssize_t waiting_count_max, Py_ssize_t waiting_bytes_max,
    ):
        self.link = link
        self.router = router
        self.sessions = sessions
        self.correlator = correlator
        self.counters = counters
        self.identification = Identification(self, resolve, waiting_count_max, waiting_bytes_max)
        self.receipts = Receipts(link, counters, router.replica_id)
        self.blocked = []

    def set_tracer(self, tracer not None):
        """Trace some messages: `tracer` says which, and is told what becomes of them."""
        self.tracer = tracer
        self.until_traced = tracer.gap()

    cdef Outcome publish(self, Session session, const Message* message) except *:
        """Publish a message of a device. Hot path; the slices of the message are borrowed for the call."""
        cdef Py_ssize_t size
        cdef int32_t request_id = 0
        cdef bint has_request_id
        cdef Route route
        if self.link.full:
            return self.defer(session)
        size = message.topic.size
        has_request_id = not message.literal and split_request_id(message.topic, &size, &request_id)
        if session.last_route is not None and session.waiting is None:
            route = <Route>session.last_route
            if route.generation == self.router.generation and is_key(slice_of(route.key), message.topic.data, size):
                if route.binding.lane is not None and cannot_take(route.binding.lane, message):
                    return self.defer(session)
                self.forward(session, route, message, has_request_id, request_id)
                return FORWARDED
        return self.publish_by_topic(session, message, size, has_request_id, request_id)

    cdef Outcome publish_by_topic(
        self, Session session, const Message* message, Py_ssize_t size, bint has_request_id, int32_t request_id
    ) except *:
        """Publish a message on another path than the session's last; `size` is that of its topic without request ID."""
        cdef Route route
        cdef Attachment attachment = None
        cdef Refusal refusal
        routes = self.router.cache(message.literal)
        route = routes.find(message.topic.data, size)
        if route is None and has_request_id:
            # A token of digits is found by its position: it ends the topic of a path that has no request ID.
            route = routes.find(message.topic.data, message.topic.size)
            has_request_id = False
        if route is None:
            return self.resolve_route(session, message, None)
        self.router.rebind(route)
        if session.tenant is not None and session.tenant != route.tenant:
            return self.refuse(session, message, has_request_id, FORBIDDEN, WRONG_TENANT, "wrong_tenant")
        if route.binding.lane is not None and cannot_take(route.binding.lane, message):
            return self.defer(session)
        if route.endpoint is not None:
            if session.waiting is not None and (route.app_version, route.token) in session.waiting:
                return self.wait(session, (route.app_version, route.token), message)
            attachment = session.attachment_under(route.app_version, route.token)
            if attachment is None:
                if session.only_token is not None and session.only_token != route.token:
                    return self.refuse(session, message, has_request_id, FORBIDDEN, OTHER_TOKEN, "other_token")
                if not self.is_current(route):
                    return self.wait(session, (route.app_version, route.token), message)
                attachment = self.sessions.attach(
                    session, route.endpoint, route.token, route.app_version, route.identity
                )
                if attachment is None:
                    refusal = self.sessions.refusal
                    return self.refuse(
                        session, message, has_request_id, refusal.status, refusal.phrase, refusal.reason
                    )
            elif attachment.endpoint is not route.endpoint:
                return self.resolve_route(session, message, attachment)
            else:
                route.endpoint.set_attachment(session, attachment)
                self.sessions.presence.note_use(session, attachment)
        if not session.closed:
            session.last_route = route
            session.current = attachment
        self.forward(session, route, message, has_request_id, request_id)
        return FORWARDED

    cdef Outcome publish_aliased(self, Session session, const Message* message, AliasedTopic alias) except *:
        """Publish a message whose topic is that of an alias, by the route that the alias has. Hot path."""
        cdef Route route = alias.route
        cdef Py_ssize_t size
        cdef Outcome outcome
        if route is None or alias.routes_forgotten != session.routes_forgotten \
                or route.generation != self.router.generation or session.waiting is not None:
            outcome = self.publish(session, message)
            if outcome == FORWARDED and not session.closed:
                alias.route = <Route>session.last_route
                alias.attachment = session.current
                alias.routes_forgotten = session.routes_forgotten
                alias.has_request_id = len(alias.route.key) != message.topic.size \
                    and split_request_id(message.topic, &size, &alias.request_id)
            return outcome
        if self.link.full or (route.binding.lane is not None and cannot_take(route.binding.lane, message)):
            return self.defer(session)
        if session.last_route is not route:
            if alias.attachment is not None:
                route.endpoint.set_attachment(session, alias.attachment)
                self.sessions.presence.note_use(session, alias.attachment)
            session.last_route = route
            session.current = alias.attachment
        self.forward(session, route, message, alias.has_request_id, alias.request_id)
        return FORWARDED

    cdef int forward(
        self, Session session, Route route, const Message* message, bint has_request_id, int32_t request_id
    ) except -1:
        """Write the PUB with its ClientData at the end of the link's block. Hot path."""
        cdef Slice head = slice_of(route.binding.head)
        cdef Py_ssize_t room, size
        cdef uint8_t* start
        cdef uint8_t* datum
        cdef uint8_t[CORRELATION_ID_SIZE] correlation_id
        if route.quota is not None and not self.is_within_quota(session, route, message, has_request_id):
            return 0
        if route.binding.lane is not None:
            return self.forward_durably(session, route, message, has_request_id, request_id)
        room = route.overhead + message.payload.size
        if room > self.link.payload_max:
            return self.refuse_too_large(session, message, has_request_id)
        if message.needs_request_id:
            give_request_id(message, &has_request_id, &request_id)
        if self.link.block.size == 0:
            self.now = now_ms()  # once a tick
        start = self.link.reserve(head.size + PUBLICATION_OVERHEAD + room)
        datum = begin_publication(start, head)
        self.put_correlation_id(correlation_id, session, message)
        size = put_client_data(datum, route, message, correlation_id, self.now, has_request_id, request_id) - datum
        if self.until_traced and self.is_traced(message):
            # Written again, with a header, in place of this, which is not committed.
            self.publish_traced(session, route, message, has_request_id, correlation_id, datum, size)
        else:
            self.link.commit(end_publication(datum, size) - start)
        route.version_counters.count_in(session.protocol, message.payload.size)
        route.binding.counters.messages += 1
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
        cdef Py_ssize_t room = route.overhead + message.payload.size
        cdef uint8_t* datum
        cdef uint8_t* end
        cdef uint8_t[CORRELATION_ID_SIZE] correlation_id
        cdef RetryPolicy policy = FAIL_FAST
        if room + lane.payload_offset > self.link.payload_max:
            return self.refuse_too_large(session, message, has_request_id)
        if message.needs_request_id:
            give_request_id(message, &has_request_id, &request_id)
        if message.service != REQUEST:
            policy = NO_RETRY if message.service == AT_MOST_ONCE else RETRY_UNTIL_STORED
        datum = lane.reserve(room)
        self.put_correlation_id(correlation_id, session, message)
        end = put_client_data(datum, route, message, correlation_id, now_ms(), has_request_id, request_id)
        route.version_counters.count_in(session.protocol, message.payload.size)
        route.binding.counters.messages += 1
        lane.commit(end - datum, correlation_id, session.key, message.token, policy)
        if self.until_traced and self.is_traced(message):
            self.trace_durably(session, route, message, has_request_id, correlation_id)
        return 0

    cdef inline void put_correlation_id(self, uint8_t* at, Session session, const Message* message) noexcept:
        """Write the correlation ID of a message. Hot path."""
        cdef uint32_t sequence = message.sequence
        if sequence & BY_ATTACHMENT:
            sequence ^= BY_ATTACHMENT
            if session.current is not None:
                sequence |= session.current.number
        self.correlator.put(at, session.key, message.service, sequence)

    cdef bint is_within_quota(
        self, Session session, Route route, const Message* message, bint has_request_id
    ) except -1:
        """Charge a message to the quotas of its route. Return False if it is refused. Hot path with a quota."""
        cdef double wait = 0
        cdef Refusal refusal = charge(route.quota, message.payload.size, monotonic(), &wait)
        if refusal is None:
            return True
        self.retry_after = <int>min(wait + 1, <double>RETRY_AFTER_MAX)  # whole seconds, and at least one
        self.refuse(session, message, has_request_id, refusal.status, refusal.phrase, refusal.reason)
        self.retry_after = 0
        return False

    cdef int refuse_too_large(self, Session session, const Message* message, bint has_request_id) except -1:
        """Refuse a message that does not fit into a message of NATS."""
        self.refuse(
            session, message, has_request_id, CONTENT_TOO_LARGE, "Payload is larger than NATS accepts",
            "payload_too_large",
        )
        return 0

    cdef bint is_traced(self, const Message* message) noexcept:
        """Return whether the message that is forwarded now is traced. Hot path, while tracing is on.

        That of a trace which its device has begun is.
        """
        if message.traceparent.data != NULL:
            return True
        self.until_traced -= 1
        return self.until_traced == 0

    cdef object begin_trace(
        self, Session session, Route route, const Message* message, bint has_request_id, const uint8_t* correlation_id
    ):
        """Begin the trace of a message, and count to the next one; return None if there are too many traces."""
        self.until_traced = self.tracer.gap()
        return self.tracer.begin(
            correlation_id[:CORRELATION_ID_SIZE], self.counters.names[<int>session.protocol],
            route.app_version.decode(), route.binding.extension.decode(), message.payload.size, has_request_id,
            self.waited, to_bytes(message.traceparent),
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
            route.binding.head, slice_of(header), slice_of(datum)
        )
        return 0 if trace is None else self.link.trace(trace)

    cdef int trace_durably(
        self, Session session, Route route, const Message* message, bint has_request_id, const uint8_t* correlation_id
    ) except -1:
        """Trace the message that its lane was given last."""
        trace = self.begin_trace(session, route, message, has_request_id, correlation_id)
        if trace is not None:
            route.binding.lane.trace_last(trace, trace.field)
        return 0

    cdef Outcome defer(self, Session session) except *:
        """Have the session try again when the link, or a lane, has room."""
        if not session.resume_wanted:
            session.resume_wanted = True
            self.blocked.append(session)
        return BUSY

    cdef bint is_current(self, Route route) except -1:
        """Return whether a session with the token of a cached route may use it without asking the provider."""
        return route.revocations == route.endpoint.revocations and monotonic() < route.identity.valid_until

    cdef Outcome resolve_route(self, Session session, const Message* message, Attachment attachment) except *:
        """Publish a message whose path has no good route. `attachment` is what its token was just resolved to."""
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
        if self.is_other_tenants(session, to_bytes(target.app_version)):
            return self.refuse(
                session, message, target.has_request_id, FORBIDDEN, WRONG_TENANT, "wrong_tenant"
            )
        if target.endpoint_aware and attachment is None:
            key = (to_bytes(target.app_version), to_bytes(target.token))
            attachment = session.attachment_under(key[0], key[1])
            if attachment is None and session.only_token is not None and session.only_token != key[1]:
                return self.refuse(
                    session, message, target.has_request_id, FORBIDDEN, OTHER_TOKEN, "other_token"
                )
            if attachment is None or (session.waiting is not None and key in session.waiting):
                return self.wait(session, key, message)
            self.sessions.presence.note_use(session, attachment)
        route = self.router.make(message.topic, message.literal, &target, attachment)
        route.version_counters = self.counters.counters_of(route.app_version)
        if attachment is not None:
            attachment.endpoint.version_counters = route.version_counters
        if not session.closed:
            session.last_route = route
            session.current = attachment
        self.forward(session, route, message, target.has_request_id, request_id)
        return FORWARDED

    cdef bint is_other_tenants(self, Session session, bytes app_version) except -1:
        """Return whether a session's client belongs to another tenant than an application version."""
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

    cdef Outcome wait(self, Session session, tuple key, const Message* message) except *:
        """Keep a copy of a message until the identity of its token is known."""
        return (<Identification>self.identification).wait(session, key, message)

    cdef int identify(self, Session session, Slice topic_filter) except -1:
        """Attach a session to the endpoint whose token a topic filter names, if it names one."""
        return (<Identification>self.identification).identify(session, topic_filter)

    # ------------------------------------------------------------ backlog

    cdef int resume_blocked(self) except -1:
        """Resume the sessions that wait, because the link takes messages again; a few in each round."""
        if self.blocked:
            blocked, self.blocked = self.blocked, []
            self.sessions.slices.run(resume_all(blocked))
        return 0

    cdef int republish(self, bytes head, const Publication* publication) except -1:
        """Publish a ClientData that we have encoded before to another subject."""
        return self.link.publish(head, publication.header, publication.payload)


cdef inline bint is_key(Slice key, const uint8_t* topic, Py_ssize_t size) noexcept nogil:
    return key.size == size and memcmp(key.data, topic, <size_t>size) == 0


def resume_all(list blocked):
    """Resume sessions that were told BUSY."""
    cdef Session session
    for session in blocked:
        session.resume_wanted = False
        if not session.closed:
            try:
                session.resume()
            except Exception:
                # The sessions after it must not stay blocked for that.
                log.exception("a session could not go on")
        yield RESUME_STEPS


cdef inline void give_request_id(const Message* message, bint* has_request_id, int32_t* request_id) noexcept nogil:
    """Give a request a request ID, because extensions answer only what has one; or none if it wants no answer."""
    if message.unanswered:
        has_request_id[0] = False
    elif not has_request_id[0]:
        has_request_id[0] = True
        request_id[0] = <int32_t>(message.sequence & REQUEST_ID_MASK)


cdef inline uint8_t* put_client_data(
    uint8_t* at, Route route, const Message* message, const uint8_t* correlation_id, int64_t now, bint has_request_id,
    int32_t request_id,
) noexcept:
    """Write the ClientData of a message; return its end. Hot path."""
    at = put_text(put_head(at, <const char*>correlation_id, now, message.timeout), route.middle)
    at = put_tail(at, has_request_id, request_id, message.payload.data, message.payload.size)
    return at if route.config_name is None else put_text(at - 1, route.config_name)


cdef inline bint cannot_take(DurableLane lane, const Message* message) noexcept:
    """Return whether a lane has no room, or its stream would keep a request waiting. Hot path."""
    return lane.full or (lane.stalled and message.service == REQUEST)
