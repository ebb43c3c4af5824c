"""Sessions (a device's connection, or its memory) and the endpoints that they speak for, in one worker.

A session sits in a slot; slot and generation make the key that correlation IDs carry, so that an answer finds its
session by index. What a session does with a message is its transport's: transports subclass Session.

An endpoint is present while a connection speaks for it. One that speaks without a connection (HTTP, a datagram) is
watched: it is present until it has been silent for the idle time, which is seen by its count of messages.
"""

from collections import OrderedDict

from libc.string cimport memcmp

from kaa_gateway.kp.correlation cimport GENERATION_BITS, SLOT_BITS, session_key

from kaa_gateway.counters import PROTOCOL_NAMES

cdef enum:
    IDLE_LOOKS = 8         # at a watched endpoint within the idle time
    ENDPOINTS_SHOWN = 100  # of a session, to an operator


cdef class Endpoint:
    """A device as the platform knows it."""

    def __init__(self, bytes endpoint_id):
        self.endpoint_id = endpoint_id
        self.sessions = {}
        self.bindings = {}


cdef class Attachment:
    """One name of an endpoint for which a session speaks: two tokens may stand for the same endpoint."""

    def __init__(self, Endpoint endpoint, bytes token, bytes app_version, uint32_t number, identity):
        self.endpoint = endpoint
        self.number = number
        self.identity = identity
        self.token = token
        self.app_version = app_version


cdef class Session:
    """The base of every transport's sessions: what 1/KP needs of them."""

    def __cinit__(self):
        self.principal = ""

    cdef int acknowledge(self, uint32_t token) except -1:
        """NATS has the message that was published with this token. Hot path."""
        return 0

    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1:
        """The gateway itself refuses a message of this session. `topic` is the request's, with its request ID."""
        return 0

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Take an ExtensionData to the device; whether this session could. Hot path.

        `endpoint` is None for an extension that is not endpoint-aware.
        """
        return False

    cdef int resume(self) except -1:
        """What made the uplink answer BUSY has passed: go on with what was kept back."""
        return 0

    cdef int end(self, str reason) except -1:
        """Its client may not go on: close its connection, if there is such a thing, and forget it."""
        return 0

    def describe(self):
        """What an operator may see of it, as JSON: no token, nothing that its device sent."""
        cdef Attachment attachment
        endpoints = []
        if self.attachments is not None:
            endpoints = [
                {
                    "endpointId": attachment.endpoint.endpoint_id.decode(),
                    "appVersion": attachment.app_version.decode(),
                    "messagesIn": attachment.endpoint.traffic.messages_in,
                    "bytesIn": attachment.endpoint.traffic.bytes_in,
                    "messagesOut": attachment.endpoint.traffic.messages_out,
                    "bytesOut": attachment.endpoint.traffic.bytes_out,
                }
                for attachment in self.attachments if attachment is not None
            ]
        return {
            "protocol": PROTOCOL_NAMES[<int>self.protocol],
            "online": bool(self.online),
            "principal": self.principal or None,
            "tenant": self.tenant,
            "endpoints": endpoints[:ENDPOINTS_SHOWN],
            "endpointCount": len(endpoints),
            "waitingMessages": self.waiting_count,
        }

    def is_of(self, str client_id not None):
        """Whether its client calls itself so; only MQTT has such names."""
        return False

    cdef Attachment attachment_of(self, Endpoint endpoint, uint32_t number):
        """How this session named an endpoint: the attachment of this number if it is one, else the latest."""
        cdef Attachment attachment
        if self.attachments is not None and number < <uint32_t>len(self.attachments):
            attachment = self.attachments[number]
            if attachment is not None and attachment.endpoint is endpoint:
                return attachment
        return <Attachment>endpoint.sessions.get(self)


cdef class Sessions:
    """The sessions of a worker by key, and its endpoints by ID.

    Free slots are reused first out, first in, so that a slot's generation comes round as late as it can. `presence`
    has `appeared` and `disappeared`, called with endpoint ID and application version when an endpoint's first
    connection comes and its last one goes. At most `watched_max` endpoints without a connection are present, for
    `idle_timeout` seconds after their last message; 0 is not at all.
    """

    def __init__(
        self, Counters counters not None, presence, Py_ssize_t endpoints_per_session_max, *, double idle_timeout,
        Py_ssize_t watched_max,
    ):
        self.counters = counters
        self.slots = []
        self.generations = []
        self.first_free = self.last_free = -1
        self.endpoints = {}
        self.endpoints_per_session_max = endpoints_per_session_max
        self.presence = presence
        self.look_period = idle_timeout / IDLE_LOOKS
        self.watched_max = watched_max
        self.watched = OrderedDict()
        self.departed = {}

    def endpoint_count(self):
        """Endpoints that some session or cached route names."""
        return len(self.endpoints)

    cdef int open(self, Session session) except -1:
        """Give a session its key."""
        cdef int32_t slot = self.first_free
        if slot >= 0:
            self.first_free = self.slots[slot]
            if self.first_free < 0:
                self.last_free = -1
        else:
            slot = <int32_t>len(self.slots)
            if slot >> SLOT_BITS:
                raise MemoryError("more sessions than slots")
            self.slots.append(None)
            self.generations.append(0)
        self.slots[slot] = session
        session.key = session_key(slot, self.generations[slot])
        self.count += 1
        return 0

    cdef int close(self, Session session) except -1:
        """Take a session out: it is found no more, and speaks for nobody.

        Messages of it that still wait for an identity are forwarded all the same when that is known.
        """
        cdef int32_t slot = <int32_t>(session.key >> GENERATION_BITS)
        cdef Attachment attachment
        if session.closed:
            return 0
        session.closed = True
        self.set_online(session, False)
        self.generations[slot] = (self.generations[slot] + 1) & ((1 << GENERATION_BITS) - 1)
        self.slots[slot] = -1
        if self.last_free >= 0:
            self.slots[self.last_free] = slot
        else:
            self.first_free = slot
        self.last_free = slot
        self.count -= 1
        session.last_route = None
        session.current = None
        if session.attachments is not None:
            for attachment in session.attached.values():
                attachment.endpoint.sessions.pop(session, None)
                self.release(attachment.endpoint)
            session.attached = None
            session.attachments = None
        return 0

    cdef int set_online(self, Session session, bint online) except -1:
        """The device of a session has come or gone, and with it the endpoints that it speaks for."""
        cdef Attachment attachment
        if session.online == online:
            return 0
        session.online = online
        if session.attachments is not None:
            for attachment in session.attached.values():
                if online:
                    self.appear(attachment.endpoint, attachment.app_version)
                else:
                    if session.connectionless and not session.closed:
                        self.watch(attachment.endpoint, attachment.app_version)
                    self.disappear(attachment.endpoint, attachment.app_version)
        return 0

    cdef int appear(self, Endpoint endpoint, bytes app_version) except -1:
        endpoint.present_count += 1
        if endpoint.present_count == 1:
            self.presence.appeared(endpoint.endpoint_id.decode(), app_version.decode())
        return 0

    cdef int disappear(self, Endpoint endpoint, bytes app_version) except -1:
        endpoint.present_count -= 1
        if endpoint.present_count == 0:
            self.presence.disappeared(endpoint.endpoint_id.decode(), app_version.decode())
        return 0

    cdef Session find(self, uint64_t key):
        """The session of a key, or None if it has ended. Hot path."""
        cdef uint64_t slot = key >> GENERATION_BITS
        if slot >= <uint64_t>len(self.slots):
            return None
        session = self.slots[slot]
        if not isinstance(session, Session) or (<Session>session).key != key:
            return None
        return <Session>session

    cdef Endpoint endpoint(self, bytes endpoint_id):
        """The endpoint of an ID, made if it is new."""
        endpoint = self.endpoints.get(endpoint_id)
        if endpoint is None:
            endpoint = self.endpoints[endpoint_id] = Endpoint(endpoint_id)
        return <Endpoint>endpoint

    cdef Endpoint known_endpoint(self, Slice endpoint_id):
        """The endpoint of an ID, or None. Hot path."""
        if endpoint_id.data == NULL:
            return None
        return <Endpoint>self.endpoints.get(endpoint_id.data[:endpoint_id.size])

    cdef Endpoint endpoint_for(self, Session session, Slice endpoint_id):
        """The endpoint of an ID, or None; that of the session's last message needs no look-up. Hot path."""
        cdef Endpoint endpoint
        if session is not None and session.current is not None:
            endpoint = session.current.endpoint
            if len(endpoint.endpoint_id) == endpoint_id.size \
                    and memcmp(<const char*>endpoint.endpoint_id, endpoint_id.data, <size_t>endpoint_id.size) == 0:
                return endpoint
        return self.known_endpoint(endpoint_id)

    cdef Attachment attach(self, Session session, Endpoint endpoint, bytes token, bytes app_version, identity):
        """Let a session speak for an endpoint by this name; None if it speaks for as many as it may already.

        A session that has ended is attached to nothing any more.
        """
        cdef Attachment attachment
        cdef Py_ssize_t number
        if session.closed:
            self.name_endpoint(endpoint, app_version)
            if session.connectionless:
                self.watch(endpoint, app_version)
            return Attachment(endpoint, token, app_version, 0, identity)
        if session.attached is None:
            session.attached = {}
            session.attachments = []
        key = (app_version, token)
        attachment = session.attached.get(key)
        if attachment is not None and attachment.endpoint is not endpoint:
            self.detach(session, attachment)
            attachment = None
        if attachment is None:
            if len(session.attached) >= self.endpoints_per_session_max:
                return None
            number = len(session.attachments)
            if number > len(session.attached):
                number = session.attachments.index(None)
            else:
                session.attachments.append(None)
            attachment = Attachment(endpoint, token, app_version, <uint32_t>number, identity)
            session.attached[key] = attachment
            session.attachments[number] = attachment
            self.endpoints[endpoint.endpoint_id] = endpoint
            self.name_endpoint(endpoint, app_version)
            if session.online:
                self.appear(endpoint, app_version)
        endpoint.sessions[session] = attachment
        self.hear(session, attachment)
        return attachment

    cdef int detach(self, Session session, Attachment attachment) except -1:
        """Let a session speak for an endpoint by this name no more."""
        cdef Endpoint endpoint = attachment.endpoint
        cdef Attachment other
        del session.attached[attachment.app_version, attachment.token]
        session.attachments[attachment.number] = None
        session.last_route = None
        session.current = None
        del endpoint.sessions[session]
        for other in session.attached.values():
            if other.endpoint is endpoint:
                endpoint.sessions[session] = other
        if session.online:
            self.disappear(endpoint, attachment.app_version)
        if endpoint.watched and not endpoint.sessions:
            return self.unwatch(endpoint)
        return self.release(endpoint)

    cdef int release(self, Endpoint endpoint) except -1:
        """Forget an endpoint that no session and no cached route names."""
        if not endpoint.sessions and endpoint.route_count == 0 and not endpoint.watched \
                and self.endpoints.get(endpoint.endpoint_id) is endpoint:
            del self.endpoints[endpoint.endpoint_id]
            self.keep_traffic(endpoint)
        return 0

    # ------------------------------------------------------------ what is taken back

    def revoke_tokens(self, str endpoint_id not None, app_versions not None, token_ids not None):
        """Tokens of an endpoint are good no more: whoever uses them speaks for it no more. How many did.

        Routes to it that are cached are checked anew by the next session that is not attached yet.
        """
        cdef Endpoint endpoint = self.endpoints.get(endpoint_id.encode())
        cdef Session session
        cdef Attachment attachment
        cdef Py_ssize_t count = 0
        if endpoint is None:
            return 0
        endpoint.revocations += 1
        for session in list(endpoint.sessions):
            for attachment in list(session.attached.values()):
                if attachment.endpoint is endpoint and attachment.app_version in app_versions \
                        and (attachment.identity.token_id is None or attachment.identity.token_id in token_ids):
                    self.detach(session, attachment)
                    count += 1
        if endpoint.watched and not endpoint.sessions and endpoint.watched_as in app_versions:
            self.unwatch(endpoint)  # its connections have ended before
        return count

    def end_clients(self, principals not None, str reason not None):
        """Clients with these credentials may not go on. How many sessions that ends."""
        cdef Session session
        cdef Py_ssize_t count = 0
        for slot in list(self.slots):
            if isinstance(slot, Session):
                session = <Session>slot
                if session.principal in principals:
                    session.end(reason)
                    count += 1
        return count

    def end_tenant(self, str tenant not None, app_versions not None, str reason not None):
        """A tenant is gone: its clients, and whoever speaks for endpoints of its applications. How many sessions."""
        cdef Session session
        cdef Attachment attachment
        cdef Py_ssize_t count = 0
        for slot in list(self.slots):
            if not isinstance(slot, Session):
                continue
            session = <Session>slot
            session.last_route = None
            attached = [] if session.attached is None else [
                attachment for attachment in session.attached.values() if attachment.app_version in app_versions
            ]
            for attachment in attached:
                self.detach(session, attachment)
            if attached or session.tenant == tenant:
                session.end(reason)
                count += 1
        return count

    def tokens_in_use(self):
        """(session key, application version, token, endpoint ID) of all that sessions speak under.

        Cached routes are checked anew, too, by the next session that is not attached yet.
        """
        cdef Session session
        cdef Attachment attachment
        cdef Endpoint endpoint
        uses = []
        for endpoint in self.endpoints.values():
            endpoint.revocations += 1
        for slot in self.slots:
            if isinstance(slot, Session) and (<Session>slot).attached is not None:
                session = <Session>slot
                for attachment in session.attached.values():
                    uses.append(
                        (session.key, attachment.app_version, attachment.token, attachment.endpoint.endpoint_id)
                    )
        return uses

    def end_use(self, uint64_t key, bytes app_version not None, bytes token not None):
        """A session speaks under a token no more, if it still does."""
        cdef Session session = self.find(key)
        if session is not None and session.attached is not None:
            attachment = session.attached.get((app_version, token))
            if attachment is not None:
                self.detach(session, <Attachment>attachment)

    def withdraw(self, changed not None, gone not None, str reason not None):
        """Another configuration: application versions whose routes are not what they were, and those that are no more.

        Whoever speaks for endpoints of the latter speaks for them no more, and whoever speaks for no others has no
        reason to stay. How many sessions that ends.
        """
        cdef Session session
        cdef Attachment attachment
        cdef Py_ssize_t count = 0
        if not changed and not gone:
            return 0
        for slot in list(self.slots):
            if not isinstance(slot, Session):
                continue
            session = <Session>slot
            session.last_route = None
            detached = [] if session.attached is None else [
                attachment for attachment in session.attached.values() if attachment.app_version in gone
            ]
            for attachment in detached:
                self.detach(session, attachment)
            if detached and not session.attached:
                session.end(reason)
                count += 1
        return count

    def set_limit(self, Py_ssize_t endpoints_per_session_max):
        """Another bound, for what comes from now on."""
        self.endpoints_per_session_max = endpoints_per_session_max

    # ------------------------------------------------------------ endpoints without a connection

    cdef int hear(self, Session session, Attachment attachment) except -1:
        """A session speaks for an endpoint, for the first time or after it spoke for another."""
        if session.connectionless and not session.online and not attachment.endpoint.watched:
            self.watch(attachment.endpoint, attachment.app_version)
        return 0

    cdef int watch(self, Endpoint endpoint, bytes app_version) except -1:
        """Let an endpoint be present until it is idle."""
        if endpoint.watched or self.look_period <= 0:
            return 0
        if len(self.watched) >= self.watched_max:
            self.counters.count("dropped", "idle_endpoints_full")
            self.unwatch(next(iter(self.watched)))
        endpoint.watched = True
        endpoint.watched_as = app_version
        endpoint.messages_seen = endpoint.traffic.messages_in
        endpoint.quiet_looks = 0
        endpoint.next_look = self.now + self.look_period
        self.endpoints[endpoint.endpoint_id] = endpoint
        self.watched[endpoint] = None
        return self.appear(endpoint, app_version)

    cdef int unwatch(self, Endpoint endpoint) except -1:
        """It is idle. Sessions that spoke for it may go on without a word; their next message is looked at closely."""
        cdef Session session
        del self.watched[endpoint]
        endpoint.watched = False
        for session in endpoint.sessions:
            if session.connectionless:
                session.last_route = None
        self.disappear(endpoint, endpoint.watched_as)
        return self.release(endpoint)

    def look_for_idle(self, double now):
        """Call about once a second with the loop's time: ends the presence of endpoints that are silent for long."""
        cdef Endpoint endpoint
        self.now = now
        while self.watched:
            endpoint = next(iter(self.watched))
            if endpoint.next_look > now:
                return
            if endpoint.messages_seen != endpoint.traffic.messages_in:
                endpoint.messages_seen = endpoint.traffic.messages_in
                endpoint.quiet_looks = 0
            else:
                endpoint.quiet_looks += 1
            if endpoint.quiet_looks >= IDLE_LOOKS:
                self.unwatch(endpoint)
            else:
                endpoint.next_look = now + self.look_period
                self.watched.move_to_end(endpoint)

    def end_presence(self):
        """The worker ends: no endpoint can be reached through it any more."""
        while self.watched:
            self.unwatch(next(iter(self.watched)))

    # ------------------------------------------------------------ traffic

    def report_traffic(self, Py_ssize_t departed_max, on_departed_full):
        """Keep the traffic of endpoints that go until it is taken.

        `on_departed_full` is called when so many are kept, and has to see that it is.
        """
        self.departed_max = departed_max
        self.on_departed_full = on_departed_full

    cdef int name_endpoint(self, Endpoint endpoint, bytes app_version) except -1:
        """An endpoint speaks under another application version: what it did before belongs to the former."""
        if endpoint.app_version is not None and endpoint.app_version != app_version:
            self.keep_traffic(endpoint)
        endpoint.app_version = app_version
        return 0

    cdef int keep_traffic(self, Endpoint endpoint) except -1:
        """Put aside what an endpoint has done since the last report."""
        if self.departed_max == 0 or endpoint.app_version is None:
            return 0
        new = take(endpoint)
        if new is None:
            return 0
        key = (endpoint.app_version, endpoint.endpoint_id)
        before = self.departed.get(key)
        self.departed[key] = new if before is None else tuple([a + b for a, b in zip(before, new)])
        if before is None and len(self.departed) == self.departed_max:
            self.on_departed_full()
        return 0

    def begin_traffic(self):
        """What `take_traffic` goes through: endpoints that are here; and rows of those that have gone."""
        departed = [(*key, *counts) for key, counts in self.departed.items()]
        self.departed = {}
        return list(self.endpoints.values()), departed

    def take_traffic(self, list endpoints):
        """(application version, endpoint ID, bytes in, bytes out, messages in, messages out) of what has happened to
        these since it was last taken."""
        cdef Endpoint endpoint
        rows = []
        for endpoint in endpoints:
            # One that has gone meanwhile was put aside; one without a name has done nothing.
            if endpoint.app_version is not None:
                new = take(endpoint)
                if new is not None:
                    rows.append((endpoint.app_version, endpoint.endpoint_id, *new))
        return rows

    # ------------------------------------------------------------ operators

    def page(self, Py_ssize_t slot, Py_ssize_t limit, Py_ssize_t scan, str protocol, str client_id, str endpoint_id):
        """At most `limit` sessions from a slot on, as (key, description), and the slot where the next page begins.

        That is None after the last. No more than `scan` slots are looked at. Filters are None for any.
        """
        cdef Session session
        cdef Endpoint endpoint = None
        cdef Py_ssize_t end = min(<Py_ssize_t>len(self.slots), slot + scan)
        found = []
        if endpoint_id is not None:
            endpoint = self.endpoints.get(endpoint_id.encode("utf-8", "surrogatepass"))
            if endpoint is None:
                return [], None
        while slot < end and len(found) < limit:
            candidate = self.slots[slot]
            slot += 1
            if not isinstance(candidate, Session):
                continue
            session = <Session>candidate
            if (protocol is None or PROTOCOL_NAMES[<int>session.protocol] == protocol) \
                    and (endpoint is None or session in endpoint.sessions) \
                    and (client_id is None or session.is_of(client_id)):
                found.append((session.key, session.describe()))
        return found, slot if slot < len(self.slots) else None

    def describe(self, uint64_t key):
        """What an operator may see of a session; None if it has ended."""
        cdef Session session = self.find(key)
        return None if session is None else session.describe()

    def disconnect(self, uint64_t key, str reason not None):
        """End a session; False if it has ended already."""
        cdef Session session = self.find(key)
        if session is None:
            return False
        session.end(reason)
        return True


cdef tuple take(Endpoint endpoint):
    """The traffic of an endpoint since the last time, in the order of 9/ELCE; None if there was none."""
    cdef Traffic now = endpoint.traffic, then = endpoint.reported
    if now.messages_in == then.messages_in and now.messages_out == then.messages_out:
        return None
    endpoint.reported = now
    return (
        now.bytes_in - then.bytes_in, now.bytes_out - then.bytes_out, now.messages_in - then.messages_in,
        now.messages_out - then.messages_out,
    )
