"""The identification of endpoint tokens: messages wait while their token is resolved.

The messages of a token wait in order, in a bounded queue of their session, while others pass. Tokens that topic filters
name are resolved too, so that pushes find their devices.
"""

from http import HTTPStatus

from libc.stdint cimport int32_t, int64_t, uint32_t

from kaa_gateway.clock cimport monotonic
from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.kp.refusal cimport Refusal
from kaa_gateway.kp.resource_path cimport split_request_id
from kaa_gateway.kp.session cimport Attachment, Endpoint
from kaa_gateway.kp.uplink cimport BUSY, TAKEN
from kaa_gateway.wire.buffer cimport slice_of, to_bytes

from kaa_gateway.errors import IdentityError

cdef enum:
    FORBIDDEN = 403
    NOT_FOUND = 404
    TOO_MANY_REQUESTS = 429
    SERVER_ERROR = 500
    UNIDENTIFIED_MAX = 10_000  # tokens of topic filters that wait to be asked for again
    RESOLVE_STEPS = 5          # that a question to the identity provider counts for


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
    cdef bint needs_request_id
    cdef bytes traceparent
    cdef double came_at   # by clock.monotonic


cdef class Identification:
    """Resolves the tokens of a worker's sessions. `resolve` returns a future of the Identity of (version, token)."""

    def __init__(self, Uplink uplink, resolve, Py_ssize_t waiting_count_max, Py_ssize_t waiting_bytes_max):
        self.uplink = uplink
        self.resolve = resolve
        self.waiting_count_max = waiting_count_max
        self.waiting_bytes_max = waiting_bytes_max
        self.unidentified = []

    def set_limits(self, Py_ssize_t waiting_count_max, Py_ssize_t waiting_bytes_max):
        """Set other bounds for the messages that wait from now on."""
        self.waiting_count_max = waiting_count_max
        self.waiting_bytes_max = waiting_bytes_max

    cdef Outcome wait(self, Session session, tuple key, const Message* message) except *:
        """Keep a copy of a message until the identity of its token is known."""
        cdef WaitingMessage copy
        cdef Py_ssize_t size = message.topic.size + message.payload.size
        if session.waiting_count >= self.waiting_count_max or (
                session.waiting_count and session.waiting_bytes + size > self.waiting_bytes_max):
            session.resume_wanted = True
            return BUSY
        if session.waiting is None or key not in session.waiting:
            self.start(session, key)
        copy = WaitingMessage()
        copy.topic = to_bytes(message.topic)
        copy.payload = message.payload.data[:message.payload.size]  # of no payload, data is NULL
        copy.service = message.service
        copy.token = message.token
        copy.sequence = message.sequence
        copy.timeout = message.timeout
        copy.unanswered = message.unanswered
        copy.literal = message.literal
        copy.needs_request_id = message.needs_request_id
        copy.traceparent = to_bytes(message.traceparent)
        copy.came_at = monotonic()
        session.waiting[key].append(copy)
        session.waiting_count += 1
        session.waiting_bytes += size
        self.waiting_messages += 1
        return TAKEN

    cdef int start(self, Session session, tuple key) except -1:
        if session.waiting is None:
            session.waiting = {}
        session.waiting[key] = []
        future = self.resolve(key[0].decode(), key[1].decode())
        future.add_done_callback(lambda done: self.resolved(session, key, done))
        return 0

    def resolved(self, Session session not None, tuple key, future):
        """Forward, or refuse, the messages that waited for the identity of a token."""
        cdef Endpoint endpoint = None
        cdef Attachment attachment = None
        cdef WaitingMessage copy
        cdef Refusal denial
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
            if key[0] not in self.uplink.router.app_versions:
                raise IdentityError(NOT_FOUND, "no_route", "Unknown application version")
            endpoint = self.uplink.sessions.endpoints.make(identity.endpoint_id.encode())
            endpoint.version_counters = self.uplink.counters.counters_of(key[0])
            attachment = self.uplink.sessions.attach(session, endpoint, key[1], key[0], identity)
            if attachment is None:
                denial = self.uplink.sessions.refusal
                raise IdentityError(denial.status, denial.reason, denial.phrase)
        except IdentityError as error:
            refusal = error
        else:
            refusal = None
        if session.wanted_tokens is not None and key in session.wanted_tokens:
            self.finish(session, key, refusal)
        for copy in waiting:
            session.waiting_count -= 1
            self.waiting_messages -= 1
            session.waiting_bytes -= len(copy.topic) + len(copy.payload)
            message.topic = slice_of(copy.topic)
            message.payload = slice_of(copy.payload)
            message.service = copy.service
            message.token = copy.token
            message.sequence = copy.sequence
            message.timeout = copy.timeout
            message.unanswered = copy.unanswered
            message.literal = copy.literal
            message.needs_request_id = copy.needs_request_id
            message.traceparent = slice_of(copy.traceparent)
            if refusal is None:
                self.uplink.waited = monotonic() - copy.came_at
                self.uplink.resolve_route(session, &message, attachment)
                self.uplink.waited = 0
            else:
                has_request_id = split_request_id(message.topic, &size, &request_id)
                self.uplink.refuse(
                    session, &message, has_request_id, refusal.status, refusal.detail or phrase_of(refusal.status),
                    refusal.reason,
                )
        if endpoint is not None:
            self.uplink.sessions.endpoints.release(endpoint)
        if session.resume_wanted and not session.closed:
            session.resume_wanted = False
            session.resume()

    cdef int identify(self, Session session, Slice topic_filter) except -1:
        """Attach a session to the endpoint whose token a topic filter names, if it names one."""
        cdef tuple key = self.uplink.router.named_by_filter(topic_filter)
        if key is None:
            return session.on_identified(None, IdentityError(NOT_FOUND, "no_route"))
        if session.attachment_under(key[0], key[1]) is not None:
            return session.on_identified(key, None)
        if self.uplink.is_other_tenants(session, key[0]):
            self.uplink.counters.count("refused", "wrong_tenant")
            return session.on_identified(key, IdentityError(FORBIDDEN, "wrong_tenant"))
        if session.only_token is not None and session.only_token != key[1]:
            self.uplink.counters.count("refused", "other_token")
            return session.on_identified(key, IdentityError(FORBIDDEN, "other_token"))
        if session.waiting is not None and key not in session.waiting \
                and len(session.waiting) >= self.waiting_count_max:
            self.uplink.counters.count("dropped", "too_many_identifications")
            return session.on_identified(key, IdentityError(TOO_MANY_REQUESTS, "too_many_identifications"))
        if session.wanted_tokens is None:
            session.wanted_tokens = set()
        session.wanted_tokens.add(key)
        return 0 if session.waiting is not None and key in session.waiting else self.start(session, key)

    def verify(self, Session session not None, tuple key not None):
        """Check the token of an attachment that another worker has made, and end it if the provider refuses it."""
        future = self.resolve(key[0].decode(), key[1].decode())
        future.add_done_callback(lambda done: self.verified(session, key, done))

    def verified(self, Session session not None, tuple key not None, future):
        """End an attachment whose token is not good, or is another endpoint's by now."""
        cdef Attachment attachment = session.attachment_under(key[0], key[1])
        try:
            endpoint_id = future.result().endpoint_id.encode()
        except IdentityError as error:
            endpoint_id = None
            if error.status >= SERVER_ERROR:
                return
        if attachment is not None and attachment.endpoint.endpoint_id != endpoint_id:
            self.uplink.sessions.end_attachment(session, attachment)

    cdef int finish(self, Session session, tuple key, refusal) except -1:
        """Forget a token that a topic filter names, or ask for it again later if the provider could not tell."""
        if refusal is None or refusal.status < SERVER_ERROR or session.closed:
            session.wanted_tokens.discard(key)
            if not session.wanted_tokens:
                session.wanted_tokens = None
            session.on_identified(key, refusal)
        elif len(self.unidentified) >= UNIDENTIFIED_MAX:
            session.wanted_tokens.discard(key)
            self.uplink.counters.count("dropped", "too_many_identifications")
            session.on_identified(key, refusal)
        else:
            self.unidentified.append((session, key))
        return 0

    def retry(self):
        """Ask again for tokens that topic filters name, so that pushes find their devices.

        Run this in slices from time to time: it takes a step for each token.
        """
        cdef Session session
        unidentified = self.unidentified
        self.unidentified = []
        for session, key in unidentified:
            if session.closed or session.wanted_tokens is None:
                pass
            elif session.waiting is not None and key in session.waiting:
                pass
            elif session.attachment_under(key[0], key[1]) is not None:
                self.finish(session, key, None)
            else:
                self.start(session, key)
            yield RESOLVE_STEPS
