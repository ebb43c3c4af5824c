from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from kaa_gateway.bus.durable cimport DurableLane
from kaa_gateway.bus.link cimport Link
from kaa_gateway.kp.correlation cimport Correlator, Service
from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.receipts cimport Receipts
from kaa_gateway.kp.router cimport Route, Router, Target
from kaa_gateway.kp.session cimport Attachment, Endpoint, Session
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.nats cimport Publication


cdef enum Outcome:
    FORWARDED   # written to the link; acknowledged when NATS has confirmed it
    TAKEN       # copied, and forwarded when the identity of its token is known
    REFUSED     # the session was told why, and its acknowledgement will come
    IGNORED     # not a resource path of 1/KP; the acknowledgement will come
    BUSY        # not taken: offer it again after Session.resume


cdef enum:
    # A flag of Message.sequence: its low bits are 0, and take the number of the attachment, which says under which of
    # the session's names the message came.
    BY_ATTACHMENT = 0x80000000


cdef struct Message:
    # What a device sent. Slices borrow from the transport's receive buffer and end with the call.
    Slice topic          # or URI path, without leading slash
    Slice payload
    Service service
    uint32_t token       # what Session.acknowledge is called with; 0 for none
    uint32_t sequence    # the session's own number, which comes back with the answer; see BY_ATTACHMENT
    int64_t timeout      # ms until the answer is of no use; 0 = never
    bint unanswered      # a REQUEST whose device wants no answer of the extension: it has its acknowledgement
    bint literal         # the protocol has no request IDs in paths: the topic is taken as it is
    bint needs_request_id  # extensions answer only what has a request ID, so it is given one where it has none
    Slice traceparent    # the trace that the device has begun (W3C Trace Context); data NULL if there is none


cdef class AliasedTopic:
    # A topic that a device names by a number of its own, and the route of its last message.
    cdef readonly bytes topic
    cdef Route route                 # None before the first
    cdef Attachment attachment       # that went with it, or None
    cdef uint32_t routes_forgotten   # the session's count at that time: the route is good as long as that is the same
    cdef bint has_request_id
    cdef int32_t request_id


cdef class Uplink:
    # wiring
    cdef Link link
    cdef Router router
    cdef Sessions sessions
    cdef Correlator correlator
    cdef Counters counters
    cdef readonly object identification   # Identification
    cdef Receipts receipts
    cdef object tracer               # kaa_gateway.app.tracing's, or None
    # state
    cdef int64_t now                 # ms since the epoch, of this tick
    cdef uint64_t until_traced       # messages until the next one that is traced; 0: tracing is off
    cdef int retry_after             # seconds until the message that is refused now may come again; 0: not known
    cdef double waited               # seconds that the message which is forwarded now has waited for its identity
    cdef list blocked                # sessions that were told BUSY because of the link's backlog

    cdef Outcome publish(self, Session session, const Message* message) except *
    cdef Outcome publish_by_topic(
        self, Session session, const Message* message, Py_ssize_t size, bint has_request_id, int32_t request_id
    ) except *
    cdef Outcome publish_aliased(self, Session session, const Message* message, AliasedTopic alias) except *
    cdef bint is_current(self, Route route) except -1
    cdef Outcome resolve_route(self, Session session, const Message* message, Attachment attachment) except *
    cdef Outcome refuse(
        self, Session session, const Message* message, bint has_request_id, int status, str phrase, str reason
    ) except *
    cdef int forward(
        self, Session session, Route route, const Message* message, bint has_request_id, int32_t request_id
    ) except -1
    cdef int forward_durably(
        self, Session session, Route route, const Message* message, bint has_request_id, int32_t request_id
    ) except -1
    cdef void put_correlation_id(self, uint8_t* at, Session session, const Message* message) noexcept
    cdef bint is_within_quota(self, Session session, Route route, const Message* message, bint has_request_id) except -1
    cdef int refuse_too_large(self, Session session, const Message* message, bint has_request_id) except -1
    cdef bint is_traced(self, const Message* message) noexcept
    cdef object begin_trace(
        self, Session session, Route route, const Message* message, bint has_request_id, const uint8_t* correlation_id
    )
    cdef int publish_traced(
        self, Session session, Route route, const Message* message, bint has_request_id,
        const uint8_t* correlation_id, const uint8_t* written, Py_ssize_t size,
    ) except -1
    cdef int trace_durably(
        self, Session session, Route route, const Message* message, bint has_request_id, const uint8_t* correlation_id
    ) except -1
    cdef Outcome defer(self, Session session) except *
    cdef Outcome wait(self, Session session, tuple key, const Message* message) except *
    cdef bint is_other_tenants(self, Session session, bytes app_version) except -1
    cdef int identify(self, Session session, Slice topic_filter) except -1
    cdef int resume_blocked(self) except -1
    cdef int republish(self, bytes head, const Publication* publication) except -1
