"""The sessions of one worker by key, and their attachments to endpoints.

A session sits in a slot; slot and generation make the key that correlation IDs carry, so that an answer finds its
session by index. What lives elsewhere: a session itself (session.pyx), endpoints (endpoints.pyx) and their presence
(presence.pyx), what is revoked (revocation.py), and what operators see (inspection.py).
"""

from libc.stdint cimport uint32_t
from libc.string cimport memcmp

from kaa_gateway.clock cimport now_ms
from kaa_gateway.kp.correlation cimport GENERATION_BITS, SLOT_BITS, session_key


cdef class Sessions:
    """The sessions of a worker.

    Free slots are reused first out, first in, so that a slot's generation comes round as late as it can. The other
    arguments are those of Presence.
    """

    def __init__(
        self, Counters counters not None, presence_listener, Py_ssize_t endpoints_per_session_max, *,
        double idle_timeout, Py_ssize_t watched_max,
    ):
        self.slots = []
        self.generations = []
        self.first_free = self.last_free = -1
        self.endpoints = Endpoints()
        self.presence = Presence(counters, self.endpoints, presence_listener, idle_timeout, watched_max)
        self.endpoints_per_session_max = endpoints_per_session_max

    def set_limit(self, Py_ssize_t endpoints_per_session_max):
        """Set the limit of endpoints for attachments from now on."""
        self.endpoints_per_session_max = endpoints_per_session_max

    # ------------------------------------------------------------ slots and keys

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
        session.opened_at = now_ms()
        self.count += 1
        return 0

    cdef int close(self, Session session) except -1:
        """Remove a session and its attachments.

        Its messages that wait for an identity are still forwarded when that is known.
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
        session.forget_last_route()
        session.current = None
        if session.attachments is not None:
            for attachment in session.attached.values():
                attachment.endpoint.sessions.pop(session, None)
                self.endpoints.release(attachment.endpoint)
            session.attached = None
            session.attachments = None
        return 0

    cdef Session find(self, uint64_t key):
        """Return the session of a key, or None if it has ended. Hot path."""
        cdef uint64_t slot = key >> GENERATION_BITS
        if slot >= <uint64_t>len(self.slots):
            return None
        session = self.slots[slot]
        if not isinstance(session, Session) or (<Session>session).key != key:
            return None
        return <Session>session

    def slot_count(self):
        """Return the number of slots, free ones included."""
        return len(self.slots)

    def at(self, Py_ssize_t slot):
        """Return the session in a slot, or None if the slot is free."""
        candidate = self.slots[slot]
        return candidate if isinstance(candidate, Session) else None

    def get(self, uint64_t key):
        """Return the session of a key, or None if it has ended."""
        return self.find(key)

    # ------------------------------------------------------------ attachments

    cdef int set_online(self, Session session, bint online) except -1:
        """Note that the device of a session has come or gone, and with it the endpoints of the session."""
        cdef Attachment attachment
        if session.online == online:
            return 0
        session.online = online
        if session.attachments is not None:
            for attachment in session.attached.values():
                if online:
                    self.presence.appear(attachment.endpoint, attachment.app_version)
                else:
                    if session.connectionless and not session.closed:
                        self.presence.watch(attachment.endpoint, attachment.app_version)
                    self.presence.disappear(attachment.endpoint, attachment.app_version)
        return 0

    cdef Endpoint endpoint_for(self, Session session, Slice endpoint_id):
        """Return the endpoint of an ID, or None. That of the session's last message needs no look-up. Hot path."""
        cdef Endpoint endpoint
        if session is not None and session.current is not None:
            endpoint = session.current.endpoint
            if len(endpoint.endpoint_id) == endpoint_id.size \
                    and memcmp(<const char*>endpoint.endpoint_id, endpoint_id.data, <size_t>endpoint_id.size) == 0:
                return endpoint
        return self.endpoints.find(endpoint_id)

    cdef Attachment attach(self, Session session, Endpoint endpoint, bytes token, bytes app_version, identity):
        """Let a session speak for an endpoint under a token; return None if the session has as many as it may have.

        For a session that has ended, the attachment is made but not kept.
        """
        cdef Attachment attachment
        cdef Py_ssize_t number
        if session.closed:
            self.endpoints.set_app_version(endpoint, app_version)
            if session.connectionless:
                self.presence.watch(endpoint, app_version)
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
            self.endpoints.hold(endpoint)
            self.endpoints.set_app_version(endpoint, app_version)
            if session.online:
                self.presence.appear(endpoint, app_version)
        endpoint.sessions[session] = attachment
        self.presence.note_use(session, attachment)
        return attachment

    cdef int detach(self, Session session, Attachment attachment) except -1:
        """End an attachment of a session."""
        cdef Endpoint endpoint = attachment.endpoint
        cdef Attachment other
        del session.attached[attachment.app_version, attachment.token]
        session.attachments[attachment.number] = None
        session.forget_last_route()
        session.current = None
        del endpoint.sessions[session]
        for other in session.attached.values():
            if other.endpoint is endpoint:
                endpoint.sessions[session] = other
        if session.online:
            self.presence.disappear(endpoint, attachment.app_version)
        if endpoint.watched and not endpoint.sessions:
            return self.presence.unwatch(endpoint)
        return self.endpoints.release(endpoint)

    def end_attachments(self, Session session not None, list attachments not None):
        """End attachments of a session, in a number of steps that is linear in those that it has."""
        cdef Attachment attachment
        cdef Endpoint endpoint
        ended = set()
        for attachment in attachments:
            del session.attached[attachment.app_version, attachment.token]
            session.attachments[attachment.number] = None
            attachment.endpoint.sessions.pop(session, None)
            ended.add(attachment.endpoint)
        session.forget_last_route()
        session.current = None
        for attachment in session.attached.values():
            if attachment.endpoint in ended:
                attachment.endpoint.sessions[session] = attachment
        for attachment in attachments:
            endpoint = attachment.endpoint
            if session.online:
                self.presence.disappear(endpoint, attachment.app_version)
            if endpoint.watched and not endpoint.sessions:
                self.presence.unwatch(endpoint)
            else:
                self.endpoints.release(endpoint)
