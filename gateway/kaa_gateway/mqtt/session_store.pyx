"""The sessions of a worker that their clients can find again: by client, and offline ones by their age.

What a session remembers is in session.pyx; who may resume which session is decided in connection.pyx.

Source: MQTT 3.1.1 sections 3.1.2.4 (Clean Session) and 4.1 (storing state).
"""

from collections import OrderedDict


cdef class MqttSessionStore:
    """Sessions that a client may resume or take over, by principal and client identifier.

    Clean sessions of anonymous clients are not here: whole fleets share one client identifier.
    """

    def __init__(self, Sessions sessions not None, MqttLimits limits not None):
        self.sessions = sessions
        self.limits = limits
        self.by_client = {}
        self.offline = OrderedDict()

    def offline_count(self):
        """Return the number of sessions whose clients are offline."""
        return len(self.offline)

    cdef MqttSession find(self, str principal, str client_id):
        """Return the session of a client, or None."""
        return self.by_client.get((principal, client_id))

    cdef int add(self, MqttSession session) except -1:
        """Let a client find its session again."""
        self.by_client[session.principal, session.client_id] = session
        return 0

    cdef int discard(self, MqttSession session) except -1:
        """End a session, and forget all that it remembers."""
        key = (session.principal, session.client_id)
        if self.by_client.get(key) is session:
            del self.by_client[key]
        self.offline.pop(session, None)
        return self.sessions.close(session)

    cdef int keep_offline(self, MqttSession session) except -1:
        """Keep a session whose client has gone offline. At the limit, the longest offline session is discarded."""
        if self.limits.persistent_sessions == 0:
            return self.discard(session)
        if len(self.offline) >= self.limits.persistent_sessions:
            session.counters.count("dropped", "session_evicted")
            self.discard(<MqttSession>self.offline.popitem(last=False)[0])
        self.offline[session] = None
        return 0

    cdef int back_online(self, MqttSession session) except -1:
        """The client of an offline session resumes it."""
        self.offline.pop(session, None)
        return 0

    def expire(self, double now):
        """Discard the sessions that have been offline for longer than the session expiry at loop time `now`."""
        cdef MqttSession session
        expired = []
        for session in self.offline:
            if now - session.offline_since < self.limits.session_expiry:
                break
            expired.append(session)
        for session in expired:
            session.counters.count("dropped", "session_expired")
            self.discard(session)
