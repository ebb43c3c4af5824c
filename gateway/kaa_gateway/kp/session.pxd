cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from kaa_gateway.counters cimport Counters, Protocol, VersionCounters
from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.kp.population cimport Population
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef struct Delivery:
    # An ExtensionData on its way to a session; slices of data borrow from the NATS bytes and end with the call.
    const ExtensionDataView* data
    bint correlated          # it answers a message of this very session ...
    Service service          # ... which came in this way,
    uint32_t sequence        # ... with this number
    PyObject* attachment     # borrowed: the session's attachment to the endpoint, or NULL if it must look that up
    PyObject* receipt        # borrowed: the Receipt of a push, if its extension wants one, else NULL


cdef struct Traffic:
    # Messages and their payload bytes.
    uint64_t messages_in
    uint64_t bytes_in
    uint64_t messages_out
    uint64_t bytes_out


cdef class Attachment
cdef class Session

cdef class Endpoint:
    # state
    cdef readonly bytes endpoint_id
    cdef bytes app_version                  # of its latest attachment
    cdef Session session                    # the only one that is attached to it; None if there are none, or several
    cdef Attachment attachment              # the latest one of that session
    cdef dict several                       # Session -> its latest Attachment, in order of sessions; or None
    cdef dict bindings                      # extension instance -> Binding, of redirected ones; None if there are none
    cdef Population population              # that counts it while sessions are attached to it; else None
    cdef dict quotas                        # application version -> its Quota; None while it has none
    cdef Py_ssize_t route_count             # cached routes to it
    cdef readonly Py_ssize_t present_count  # connections that reach it, and one if it is watched
    cdef readonly uint32_t revocations      # how often tokens of it were revoked
    cdef VersionCounters version_counters   # of its latest application version
    # state without a connection (Presence)
    cdef readonly bint watched              # it counts as connected until it has been silent for long
    cdef readonly bytes watched_as          # application version of that
    cdef uint64_t messages_seen             # messages_in at the last look
    cdef int quiet_looks                    # looks in a row that found nothing new
    cdef double next_look                   # loop time
    cdef Endpoint watched_before            # in order of next_look; None at the ends
    cdef Endpoint watched_after
    # counters
    cdef Traffic traffic
    cdef Traffic reported                   # the part of it that has been reported

    @cython.final
    cdef inline Attachment attachment_of(self, Session session):
        # Return the latest attachment of a session, or None. Hot path.
        if self.several is None:
            return self.attachment if self.session is session else None
        return <Attachment>self.several.get(session)

    @cython.final
    cdef inline Py_ssize_t session_count(self) noexcept:
        # Return the number of sessions that are attached. Hot path.
        return (self.session is not None) if self.several is None else len(self.several)

    cdef int set_attachment(self, Session session, Attachment attachment) except -1
    cdef int forget_session(self, Session session) except -1
    cpdef list all_sessions(self)


cdef class Attachment:
    # A token under which a session speaks for an endpoint.
    cdef readonly Endpoint endpoint
    cdef readonly bytes token
    cdef readonly bytes app_version
    cdef uint32_t number                    # place in the session's attachments
    cdef readonly object identity           # the provider's Identity
    cdef bytes push_topic                   # of the push to it that came last: its address, and its topic; or None
    # state
    cdef bint present                       # the endpoint's presence counts it
    cdef uint32_t waiters                   # requests that wait for a push to it
    cdef readonly bint ended                # the session does not have it any more
    cdef Attachment earlier                 # the session's other attachments to the same endpoint, a chain; or None
    cdef Attachment later

    @cython.final
    cdef inline bint is_under(self, bytes app_version, bytes token):
        # Return whether it is for this token. Hot path.
        return (self.token is token or self.token == token) and (
            self.app_version is app_version or self.app_version == app_version
        )


cdef class AttachmentTable:
    # The attachments of a session that has had several.
    # state
    cdef dict by_key              # (application version, token) -> Attachment
    cdef list by_number           # None where one was removed
    cdef list free_numbers

    cdef int add(self, Attachment attachment) except -1
    cdef int remove(self, Attachment attachment) except -1


cdef class Session:
    # wiring
    cdef Counters counters
    cdef Protocol protocol
    # identity
    cdef readonly str principal   # names its client's credentials; empty if there are none
    cdef readonly str client      # ID of its client at the provider of identities, or None
    cdef readonly str tenant      # the only tenant whose applications it may speak for, or None
    cdef readonly bytes only_token  # the only endpoint token that it may use, or None
    # state
    cdef readonly uint64_t key    # slot and generation
    cdef int64_t opened_at        # ms since the epoch
    cdef bint closed
    cdef bint online              # its device can be reached now, unasked
    cdef bint connectionless      # it ends unnoticed, or with each message: endpoints are watched
    cdef bint resume_wanted       # was told BUSY
    cdef object last_route        # Route of the last message, or None
    cdef Attachment current       # of the last message, or None
    cdef uint32_t routes_forgotten  # how often `forget_last_route` was called
    cdef Population population    # of the first application version that it speaks for; None before that
    cdef bint counted             # ... which counts it as a connection
    cdef Attachment attachment    # its only one; None if it has none, or has had several
    cdef AttachmentTable several  # those of a session that has had several, else None
    cdef bint settling            # the presence of its endpoints is being brought up to date, in slices ...
    cdef bint unsettled           # ... and it has gone online or offline meanwhile
    cdef dict waiting             # (application version, token) -> list of messages that wait for its identity
    cdef Py_ssize_t waiting_count
    cdef Py_ssize_t waiting_bytes
    cdef set wanted_tokens        # (application version, token) that topic filters name, not identified yet

    @cython.final
    cdef inline int forget_last_route(self) except -1:
        # Let the next message look its route up, and what is known of others: see AliasedTopic.
        self.last_route = None
        self.routes_forgotten += 1
        return 0

    @cython.final
    cdef inline Attachment attachment_under(self, bytes app_version, bytes token):
        # Return the attachment under a token, or None. Hot path.
        if self.several is not None:
            return <Attachment>self.several.by_key.get((app_version, token))
        if self.attachment is not None and self.attachment.is_under(app_version, token):
            return self.attachment
        return None

    cpdef Py_ssize_t attachment_count(self) noexcept
    cpdef list all_attachments(self)
    cdef int add_attachment(self, Attachment attachment) except -1
    cdef int remove_attachment(self, Attachment attachment) except -1
    cdef int set_client(self, client) except -1
    cdef int acknowledge(self, uint32_t token) except -1
    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1
    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1
    cdef int on_identified(self, tuple key, refusal) except -1
    cdef int on_detached(self, Attachment attachment) except -1
    cdef int resume(self) except -1
    cdef int end(self, str reason) except -1
    cdef int on_attachments_changed(self) except -1
    cdef Attachment attachment_of(self, Endpoint endpoint, uint32_t number)
