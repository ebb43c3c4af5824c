"""The sessions of one worker by key, and their attachments to endpoints.

A session sits in a slot; slot and generation make the key that correlation IDs carry, so that an answer finds its
session by index. What lives elsewhere: a session itself (session.pyx), endpoints (endpoints.pyx) and their presence
(presence.pyx), what is revoked (revocation.py), and what operators see (inspection.py).
"""

from libc.stdlib cimport free, realloc
from libc.string cimport memcmp

from kaa_gateway.clock cimport now_ms
from kaa_gateway.counters cimport MQTT, MQTT_SN
from kaa_gateway.kp.correlation cimport GENERATION_BITS, SLOT_BITS, session_key

cdef enum:
    SLOTS_AT_FIRST = 64
    ATTACHMENTS_AT_ONCE = 100  # of a session that comes or goes; more are handled in slices
    TOO_MANY_REQUESTS = 429

cdef Refusal TOO_MANY_ENDPOINTS = Refusal(
    TOO_MANY_REQUESTS, "too_many_endpoints", "Too many endpoints on one connection"
)
cdef Refusal TOO_MANY_CONNECTIONS = Refusal(
    TOO_MANY_REQUESTS, "endpoint_connections", "The endpoint has too many connections"
)


cdef class Sessions:
    """The sessions of a worker.

    Free slots are reused first out, first in, so that a slot's generation comes round as late as it can. `slices` does
    what takes long, for a session with many endpoints (kaa_gateway.slices). The other arguments are those of Presence.
    """

    def __init__(
        self, Counters counters not None, slices, presence_listener, Py_ssize_t endpoints_per_session_max, *,
        double idle_timeout, Py_ssize_t watched_max,
    ):
        self.slices = slices
        self.sessions = []
        self.first_free = self.last_free = -1
        self.endpoints = Endpoints()
        self.quotas = Quotas()
        self.presence = Presence(counters, self.endpoints, presence_listener, idle_timeout, watched_max)
        self.endpoints_per_session_max = endpoints_per_session_max

    def __dealloc__(self):
        free(self.slots)

    def set_limit(self, Py_ssize_t endpoints_per_session_max):
        """Set the limit of endpoints for attachments from now on."""
        self.endpoints_per_session_max = endpoints_per_session_max

    # ------------------------------------------------------------ slots and keys

    cdef int open(self, Session session) except -1:
        """Give a session its key."""
        cdef int32_t slot = self.take_slot()
        self.sessions[slot] = session
        session.key = session_key(slot, self.slots[slot].generation)
        session.opened_at = now_ms()
        self.count += 1
        return 0

    cdef int32_t take_slot(self) except -1:
        """Return a free slot, which is not free from now on."""
        cdef int32_t slot = self.first_free
        cdef Py_ssize_t capacity
        cdef Slot* slots
        if slot >= 0:
            self.first_free = self.slots[slot].next_free
            if self.first_free < 0:
                self.last_free = -1
            return slot
        slot = <int32_t>len(self.sessions)
        if slot >> SLOT_BITS:
            raise MemoryError("more sessions than slots")
        if slot == self.capacity:
            capacity = max(2 * self.capacity, <Py_ssize_t>SLOTS_AT_FIRST)
            slots = <Slot*>realloc(self.slots, <size_t>capacity * sizeof(Slot))
            if slots == NULL:
                raise MemoryError
            self.slots = slots
            self.capacity = capacity
        self.sessions.append(None)
        self.slots[slot] = Slot(0, -1)
        return slot

    cdef int close(self, Session session) except -1:
        """Remove a session and its attachments.

        Its messages that wait for an identity are still forwarded when that is known.
        """
        cdef int32_t slot = <int32_t>(session.key >> GENERATION_BITS)
        cdef Attachment attachment
        cdef list ended
        if session.closed:
            return 0
        session.closed = True
        session.online = False
        self.count_connection(session, False)
        self.sessions[slot] = None
        self.slots[slot] = Slot((self.slots[slot].generation + 1) & ((1 << GENERATION_BITS) - 1), -1)
        if self.last_free >= 0:
            self.slots[self.last_free].next_free = slot
        else:
            self.first_free = slot
        self.last_free = slot
        self.count -= 1
        session.forget_last_route()
        session.current = None
        if session.attachment_count() == 0:
            return 0
        ended = session.all_attachments()
        session.attachment = session.several = None
        if len(ended) <= ATTACHMENTS_AT_ONCE:
            for attachment in ended:
                self.leave(session, attachment)
        else:
            self.slices.run(self.leave_all(session, ended))
        return 0

    cdef int leave(self, Session session, Attachment attachment) except -1:
        """End an attachment of a session that has been closed."""
        self.unlink(session, attachment)
        self.endpoints.release(attachment.endpoint)
        return 0

    def leave_all(self, Session session, list ended):
        """End the attachments of a session that has been closed, one a step."""
        cdef Attachment attachment
        for attachment in ended:
            self.leave(session, attachment)
            yield 1

    cdef Session find(self, uint64_t key):
        """Return the session of a key, or None if it has ended. Hot path."""
        cdef uint64_t slot = key >> GENERATION_BITS
        cdef Session session
        if slot >= <uint64_t>len(self.sessions):
            return None
        session = <Session>self.sessions[slot]
        return session if session is not None and session.key == key else None

    def slot_count(self):
        """Return the number of slots, free ones included."""
        return len(self.sessions)

    def at(self, Py_ssize_t slot):
        """Return the session in a slot, or None if the slot is free."""
        return self.sessions[slot]

    def get(self, uint64_t key):
        """Return the session of a key, or None if it has ended."""
        return self.find(key)

    # ------------------------------------------------------------ attachments

    cdef int set_online(self, Session session, bint online) except -1:
        """Note that the device of a session has come or gone, and with it the endpoints of the session."""
        cdef Attachment attachment
        cdef Py_ssize_t count
        if session.online == online:
            return 0
        session.online = online
        if session.population is not None:
            self.count_connection(session, online)
        count = session.attachment_count()
        if session.settling:
            session.unsettled = True
        elif count == 0:
            return 0
        elif count <= ATTACHMENTS_AT_ONCE:
            for attachment in session.all_attachments():
                self.update_presence(session, attachment)
        else:
            session.settling = True
            self.slices.run(self.settle(session))
        return 0

    def settle(self, Session session):
        """Bring the presence of a session's endpoints up to date, one a step."""
        cdef Attachment attachment
        session.unsettled = True
        while session.unsettled and session.attachment_count():
            session.unsettled = False
            for attachment in session.all_attachments():
                if not attachment.ended:
                    self.update_presence(session, attachment)
                yield 1
        session.settling = False

    cdef int add_waiter(self, Session session, Attachment attachment) except -1:
        """Let the endpoint of an attachment be present: a request of the session waits for a push to it."""
        attachment.waiters += 1
        return self.update_presence(session, attachment)

    cdef int remove_waiter(self, Session session, Attachment attachment) except -1:
        """End what `add_waiter` has begun."""
        attachment.waiters -= 1
        return 0 if attachment.ended else self.update_presence(session, attachment)

    cdef int update_presence(self, Session session, Attachment attachment) except -1:
        """Let the endpoint of an attachment be present if the session's device can be reached."""
        cdef bint present = session.online or attachment.waiters > 0
        if attachment.present == present:
            return 0
        attachment.present = present
        if present:
            return self.presence.appear(attachment.endpoint, attachment.app_version)
        if session.connectionless and not session.closed:
            self.presence.watch(attachment.endpoint, attachment.app_version)
        return self.presence.disappear(attachment.endpoint, attachment.app_version)

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
        """Let a session speak for an endpoint under a token; return None if it may not, which `refusal` explains.

        For a session that has ended, the attachment is made but not kept.
        """
        cdef Attachment attachment, latest
        cdef Population population
        if session.closed:
            self.endpoints.set_app_version(endpoint, app_version)
            if session.connectionless:
                self.presence.watch(endpoint, app_version)
            return Attachment(endpoint, token, app_version, identity)
        attachment = session.attachment_under(app_version, token)
        if attachment is not None and attachment.endpoint is not endpoint:
            self.detach(session, attachment)
            attachment = None
        if attachment is None:
            population = self.quotas.population_of(app_version)
            app_version = population.app_version  # the same bytes for all
            self.refusal = self.refusal_of(session, endpoint, app_version, population)
            if self.refusal is not None:
                return None
            if session.population is None:
                session.population = population
                self.count_connection(session, session.online or session.protocol not in (MQTT, MQTT_SN))
            if endpoint.population is None:
                endpoint.population = population
                population.add_endpoints(1)
            attachment = Attachment(endpoint, token, app_version, identity)
            session.add_attachment(attachment)
            latest = endpoint.attachment_of(session)
            if latest is not None:
                attachment.earlier = latest
                attachment.later = latest.later
                if latest.later is not None:
                    latest.later.earlier = attachment
                latest.later = attachment
            self.endpoints.hold(endpoint)
            self.endpoints.set_app_version(endpoint, app_version)
            self.update_presence(session, attachment)
            session.on_attachments_changed()
        endpoint.set_attachment(session, attachment)
        self.presence.note_use(session, attachment)
        return attachment

    cdef Refusal refusal_of(self, Session session, Endpoint endpoint, bytes app_version, Population population):
        """Return why a session may not speak for one more endpoint, or None if it may."""
        if session.attachment_count() >= self.endpoints_per_session_max:
            return TOO_MANY_ENDPOINTS
        if self.quotas.endpoint_connections and endpoint.attachment_of(session) is None:
            connections_max = self.quotas.endpoint_connections.get(app_version)
            if connections_max is not None and self.has_connections(endpoint, connections_max):
                return TOO_MANY_CONNECTIONS
        return population.refusal(session.population is None, endpoint.population is None)

    cdef bint has_connections(self, Endpoint endpoint, Py_ssize_t count) except -1:
        """Return whether so many connections use an endpoint; a session whose client is away is none."""
        cdef Session session
        if endpoint.session_count() < count:
            return False
        for session in endpoint.all_sessions():
            count -= session.online or session.protocol != MQTT
        return count <= 0

    cdef int count_connection(self, Session session, bint connected) noexcept:
        """Count a session as a connection of its application version, or not any more."""
        if session.population is not None and session.counted != connected:
            session.counted = connected
            session.population.add_connections(1 if connected else -1)
        return 0

    cdef int detach(self, Session session, Attachment attachment) except -1:
        """End an attachment of a session. Takes constant time."""
        cdef Endpoint endpoint = attachment.endpoint
        session.remove_attachment(attachment)
        session.forget_last_route()
        session.current = None
        session.on_attachments_changed()
        self.unlink(session, attachment)
        session.on_detached(attachment)
        if endpoint.watched and endpoint.session_count() == 0:
            return self.presence.unwatch(endpoint)
        return self.endpoints.release(endpoint)

    cdef int unlink(self, Session session, Attachment attachment) except -1:
        """Take an attachment away from its endpoint, where another one of the session takes its place."""
        cdef Endpoint endpoint = attachment.endpoint
        cdef Attachment earlier = attachment.earlier, later = attachment.later
        attachment.ended = True
        attachment.earlier = attachment.later = None
        if earlier is not None:
            earlier.later = later
        if later is not None:
            later.earlier = earlier
        if endpoint.attachment_of(session) is attachment:
            if earlier is None and later is None:
                endpoint.forget_session(session)
            else:
                endpoint.set_attachment(session, earlier if later is None else later)
        if endpoint.population is not None and endpoint.session_count() == 0:
            endpoint.population.add_endpoints(-1)
            endpoint.population = None
        if attachment.present:
            attachment.present = False
            self.presence.disappear(endpoint, attachment.app_version)
        return 0

    def attachments_to(self, Endpoint endpoint not None, Session session not None):
        """Return the attachments of a session to an endpoint: there is one for each token."""
        cdef Attachment attachment = endpoint.attachment_of(session)
        if attachment is None:
            return []
        while attachment.earlier is not None:
            attachment = attachment.earlier
        found = []
        while attachment is not None:
            found.append(attachment)
            attachment = attachment.later
        return found

    def end_attachment(self, Session session not None, Attachment attachment not None):
        """End an attachment of a session. Return False if it has ended already."""
        if attachment.ended or session.closed:
            return False
        self.detach(session, attachment)
        return True

    def move_attachment(self, Session session not None, Attachment attachment not None, bytes app_version not None):
        """Let a session speak for the same endpoint under another application version; False if it has ended."""
        cdef Endpoint endpoint = attachment.endpoint
        if not self.end_attachment(session, attachment):
            return False
        self.attach(session, endpoint, attachment.token, app_version, attachment.identity)
        endpoint.version_counters = self.presence.counters.counters_of(app_version)
        return True
