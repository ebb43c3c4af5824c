"""Sessions (a device's connection, or its memory) and the endpoints that they speak for, in one worker.

A session sits in a slot; slot and generation make the key that correlation IDs carry, so that an answer finds its
session by index. What a session does with a message is its transport's: transports subclass Session.
"""

from gateway.kp.correlation cimport GENERATION_BITS, SLOT_BITS, session_key


cdef class Endpoint:
    """A device as the platform knows it."""

    def __init__(self, bytes endpoint_id):
        self.endpoint_id = endpoint_id
        self.sessions = {}
        self.bindings = {}


cdef class Attachment:
    """One name of an endpoint for which a session speaks: two tokens may stand for the same endpoint."""

    def __init__(self, Endpoint endpoint, bytes token, bytes app_version, uint32_t number):
        self.endpoint = endpoint
        self.number = number
        self.token = token
        self.app_version = app_version


cdef class Session:
    """The base of every transport's sessions: what 1/KP needs of them."""

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

    cdef Attachment attachment_of(self, Endpoint endpoint, uint32_t number):
        """How this session named an endpoint: the attachment of this number if it is one, else the latest."""
        cdef Attachment attachment
        if self.attachments is not None and number < <uint32_t>len(self.attachments):
            attachment = self.attachments[number]
            if attachment.endpoint is endpoint:
                return attachment
        return <Attachment>endpoint.sessions.get(self)


cdef class Sessions:
    """The sessions of a worker by key, and its endpoints by ID.

    Free slots are reused first out, first in, so that a slot's generation comes round as late as it can. `presence`
    has `appeared` and `disappeared`, called with endpoint ID and application version when an endpoint's first
    connection comes and its last one goes.
    """

    def __init__(self, Py_ssize_t endpoints_per_session_max, presence):
        self.slots = []
        self.generations = []
        self.first_free = self.last_free = -1
        self.endpoints = {}
        self.endpoints_per_session_max = endpoints_per_session_max
        self.presence = presence

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
        self.set_online(session, False)
        session.closed = True
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
            for attachment in session.attachments:
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
            for attachment in session.attachments:
                if online:
                    self.appear(attachment.endpoint, attachment.app_version)
                else:
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

    cdef Attachment attach(self, Session session, Endpoint endpoint, bytes token, bytes app_version):
        """Let a session speak for an endpoint by this name; None if it speaks for as many as it may already.

        A session that has ended is attached to nothing any more.
        """
        cdef Attachment attachment
        if session.closed:
            return Attachment(endpoint, token, app_version, 0)
        if session.attached is None:
            session.attached = {}
            session.attachments = []
        key = (app_version, token)
        attachment = session.attached.get(key)
        if attachment is None:
            if len(session.attachments) >= self.endpoints_per_session_max:
                return None
            attachment = Attachment(endpoint, token, app_version, <uint32_t>len(session.attachments))
            session.attached[key] = attachment
            session.attachments.append(attachment)
            self.endpoints[endpoint.endpoint_id] = endpoint
            if session.online:
                self.appear(endpoint, app_version)
        endpoint.sessions[session] = attachment
        return attachment

    cdef int release(self, Endpoint endpoint) except -1:
        """Forget an endpoint that no session and no cached route names."""
        if not endpoint.sessions and endpoint.route_count == 0 \
                and self.endpoints.get(endpoint.endpoint_id) is endpoint:
            del self.endpoints[endpoint.endpoint_id]
        return 0
