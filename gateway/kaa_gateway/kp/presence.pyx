"""The presence of endpoints: which of them can be reached, or were heard of lately.

An endpoint is present while a connection speaks for it. One that speaks without a connection (HTTP, a datagram) is
watched: it is present until it has been silent for the idle time, which its count of messages shows.
"""

from collections import OrderedDict

cdef enum:
    IDLE_LOOKS = 8        # at a watched endpoint within the idle time
    LOOKS_PER_CALL = 500  # at endpoints


cdef class Presence:
    """The presence of a worker's endpoints.

    `listener` has `appeared` and `disappeared`, called with endpoint ID and application version when an endpoint's
    first connection comes and when its last one goes. At most `watched_max` endpoints without a connection are
    present, for `idle_timeout` seconds after their last message; with 0, none is.
    """

    def __init__(
        self, Counters counters not None, Endpoints endpoints not None, listener, double idle_timeout,
        Py_ssize_t watched_max,
    ):
        self.counters = counters
        self.endpoints = endpoints
        self.listener = listener
        self.look_period = idle_timeout / IDLE_LOOKS
        self.watched_max = watched_max
        self.watched = OrderedDict()

    cdef int appear(self, Endpoint endpoint, bytes app_version) except -1:
        """Count a new connection that reaches the endpoint."""
        endpoint.present_count += 1
        if endpoint.present_count == 1:
            self.listener.appeared(endpoint.endpoint_id.decode(), app_version.decode())
        return 0

    cdef int disappear(self, Endpoint endpoint, bytes app_version) except -1:
        """Count the end of a connection."""
        endpoint.present_count -= 1
        if endpoint.present_count == 0:
            self.listener.disappeared(endpoint.endpoint_id.decode(), app_version.decode())
        return 0

    cdef int note_use(self, Session session, Attachment attachment) except -1:
        """Watch the endpoint of an attachment that a session without a connection begins to use."""
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
        self.endpoints.hold(endpoint)
        self.watched[endpoint] = None
        return self.appear(endpoint, app_version)

    cdef int unwatch(self, Endpoint endpoint) except -1:
        """End the presence of an idle endpoint. Its sessions stay; the next message of one watches it again."""
        cdef Session session
        del self.watched[endpoint]
        endpoint.watched = False
        for session in endpoint.sessions:
            if session.connectionless:
                session.forget_last_route()
        self.disappear(endpoint, endpoint.watched_as)
        return self.endpoints.release(endpoint)

    def forget(self, Endpoint endpoint not None):
        """End the presence of an endpoint that is watched."""
        self.unwatch(endpoint)

    def look_for_idle(self, double now):
        """End the presence of endpoints that have been silent for long; call once a second with the loop's time.

        Return whether there may be more: a call looks at no more than a slice, so that the event loop goes on.
        """
        cdef Endpoint endpoint
        cdef int _
        self.now = now
        for _ in range(LOOKS_PER_CALL):
            if not self.watched:
                return False
            endpoint = next(iter(self.watched))
            if endpoint.next_look > now:
                return False
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
        return True

    def end(self):
        """End the presence of all watched endpoints, because the worker ends."""
        while self.watched:
            self.unwatch(next(iter(self.watched)))
