"""The sessions of a worker that their clients can find again: by client, and offline ones by their age.

What a session remembers is in session.pyx; who may resume which session is decided in connect_handler.pyx.

Source: MQTT 3.1.1 sections 3.1.2.4 (Clean Session) and 4.1 (storing state); MQTT 5 sections 3.1.2.11.2 (session
expiry) and 3.1.3.2.2 (will delay).
"""

from collections import OrderedDict

from kaa_gateway.fleet.messages import Offer

from kaa_gateway.mqtt.client_table cimport ClientTable
from kaa_gateway.mqtt.deadlines cimport Deadlines
from kaa_gateway.mqtt.stored_session cimport MqttStoredSession
from kaa_gateway.mqtt.will cimport Will

cdef enum:
    EXPIRED_PER_CALL = 500  # sessions

cdef double GIVE_LATER = 0.5  # seconds for which a session that moves waits for NATS to have its client's messages


cdef class MqttSessionStore:
    """Sessions that a client may resume or take over, by principal and client identifier.

    Clean sessions of anonymous clients are not here: whole fleets share one client identifier.
    """

    def __init__(self, Sessions sessions not None, MqttLimits limits not None, SessionDirectory directory=None):
        self.sessions = sessions
        self.limits = limits
        self.directory = directory
        self.clients = ClientTable()
        self.offline = OrderedDict()
        self.expiring = Deadlines()
        self.wills = Deadlines()

    def set_downlink(self, Downlink downlink not None):
        """Set what takes the answers and pushes that come for sessions which have moved; once, before the start."""
        self.downlink = downlink

    def set_storage(self, SessionStorage storage):
        """Set where sessions outlive the worker; once, before the start."""
        self.storage = storage

    def offline_count(self):
        """Return the number of sessions whose clients are offline."""
        return len(self.offline)

    def offline_bytes(self):
        """Return the bytes that these take."""
        return self.bytes

    cdef MqttSession find(self, str principal, str client_id):
        """Return the session of a client, or None."""
        cdef SessionEntry entry = self.clients.find(principal, client_id)
        return None if entry is None else entry.session

    cdef int remove(self, SessionEntry entry) except -1:
        """Remove a client without a session, here and from the directory."""
        self.clients.remove(entry)
        return 0 if self.directory is None else self.directory.leave(entry)

    cdef int add(self, SessionEntry entry, MqttSession session) except -1:
        """Let a client find its session again."""
        entry.session = session
        session.number = entry.number
        session.entry = entry
        return 0

    cdef int keep(self, SessionEntry entry, MqttSession session) except -1:
        """Let a session outlive the worker, unless it ends with its connection: then none may be found later."""
        if self.storage is None:
            return 0
        if session.clean and session.stored is None:
            return self.storage.remove_older(entry.name, entry.number)
        if session.clean:
            return self.end_stored(session)
        if session.stored is None:
            session.stored = MqttStoredSession()
            session.stored.storage = self.storage
            session.stored.entry = entry
            session.stored.session = session
            session.stored.name = entry.name
            session.stored.client = session.client_id
            session.stored.revision = session.revision
        session.stored.number = session.number
        return session.stored.change()

    cdef int end_stored(self, MqttSession session) except -1:
        """Write that a session has ended, if it outlives the worker."""
        cdef MqttStoredSession stored = session.stored
        if stored is None:
            return 0
        session.stored = None
        stored.close()
        return self.storage.remove(stored)

    cdef int discard(self, MqttSession session) except -1:
        """End a session, and forget all that it remembers. Its will, if that waits, is published."""
        cdef SessionEntry entry = self.take_out(session)
        self.end_stored(session)
        self.publish_will(session)
        self.back_online(session)
        self.sessions.close(session)
        return 0 if entry is None else entry.discarded()

    cdef int forget(self, MqttSession session) except -1:
        """End a session whose client goes on with another one, so that a will that waits is dropped."""
        cdef MqttStoredSession stored = session.stored
        self.take_out(session)
        if stored is not None:
            session.stored = None
            stored.close()
            self.storage.forget(stored)
        self.back_online(session)
        return self.sessions.close(session)

    cdef SessionEntry take_out(self, MqttSession session):
        """Take a session away from its client. Return the client's entry, or None if the session has none."""
        cdef SessionEntry entry = <SessionEntry>session.entry
        session.entry = None
        if entry is None or entry.session is not session:
            return None
        entry.session = None
        return entry

    cdef int on_acknowledged(self, MqttSession session) except -1:
        """Note that NATS has all messages of an offline client, or that they are under way."""
        cdef SessionEntry entry = <SessionEntry>session.entry
        return entry.acknowledged() if entry is not None and entry.session is session else 0

    cdef int give_later(self, SessionEntry entry) except -1:
        """Give a session to another worker in a while, if that has not been done before."""
        self.directory.loop.call_later(min(self.directory.claims.timeout / 2, GIVE_LATER), entry.give_now)
        return 0

    cdef int keep_offline(self, MqttSession session) except -1:
        """Keep a session whose client has gone offline, and discard the longest offline ones beyond the limits."""
        session.stored_bytes = session.memory()
        self.bytes += session.stored_bytes
        self.offline[session] = None
        session.expires_at = session.offline_since + session.expiry
        self.expiring.add(session, session.expires_at, session.offline_since)
        if session.will is not None:
            session.will_due = session.offline_since + session.will.delay
            self.wills.add(session, session.will_due, session.offline_since)
        if session.stored is not None:
            session.stored.change()
        while len(self.offline) > self.limits.persistent_sessions or self.bytes > self.limits.persistent_bytes:
            self.evict_oldest()
        return 0

    cdef bint make_room(self, MqttSession session, Py_ssize_t size) except -1:
        """Count `size` more bytes of an offline session. Return False if there is no room for them.

        The longest offline sessions are discarded for them, but not this one: it is delivering.
        """
        while self.bytes + size > self.limits.persistent_bytes:
            if next(iter(self.offline)) is session:
                return False
            self.evict_oldest()
        session.stored_bytes += size
        self.bytes += size
        return True

    cdef int evict_oldest(self) except -1:
        """Discard the longest offline session."""
        cdef MqttSession session = next(iter(self.offline))
        if self.limits.persistent_sessions:
            session.counters.count("dropped", "session_evicted")
        return self.discard(session)

    cdef int back_online(self, MqttSession session) except -1:
        """Take a session that its client resumes, or that ends, out of the offline ones. Drop a will that waits."""
        if session.stored_bytes:
            del self.offline[session]
            self.bytes -= session.stored_bytes
            session.stored_bytes = 0
            self.expiring.remove(session, session.expires_at)
            if session.will is not None:
                self.wills.remove(session, session.will_due)
                session.will = None
        return 0

    cdef int publish_will(self, MqttSession session) except -1:
        """Publish the will of a session whose delay has passed, or that ends before (MQTT 5, 3.1.3.2.2)."""
        cdef Will will = session.will
        if will is None:
            return 0
        self.wills.remove(session, session.will_due)
        session.will = None
        return will.publish(self.uplink, session)

    def publish_wills(self, double now):
        """Publish wills whose delay has passed at loop time `now`; call about once a second.

        A call publishes no more than a slice, so that the event loop goes on.
        """
        cdef int _
        for _ in range(EXPIRED_PER_CALL):
            session = self.wills.take_due(now)
            if session is None:
                return
            self.publish_will(<MqttSession>session)

    def offers(self):
        """Return the sessions of offline clients, for other workers to take, because this one stops."""
        cdef MqttSession session
        cdef SessionEntry entry
        found = []
        for session in self.offline:
            entry = <SessionEntry>session.entry
            if entry is not None and entry.session is session and entry.sid:
                found.append(Offer(
                    entry.name, entry.number, session.principal, session.tenant, session.client, session.client_id
                ))
        return found

    def end_wills(self):
        """Publish the wills that wait, because the worker ends."""
        for session in list(self.offline):
            self.publish_will(<MqttSession>session)

    def expire(self, double now):
        """Discard sessions that have been offline for longer than their expiry at loop time `now`.

        Return whether there may be more: a call discards no more than a slice, so that the event loop goes on.
        """
        cdef MqttSession session
        cdef int _
        for _ in range(EXPIRED_PER_CALL):
            session = self.expiring.take_due(now)
            if session is None:
                return False
            session.counters.count("dropped", "session_expired")
            self.discard(session)
        return True
