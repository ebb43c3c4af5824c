"""The presence of endpoints: which of them can be reached, or were heard of lately.

An endpoint is present while a connection speaks for it. One that speaks without a connection (HTTP, a datagram) is
watched: it is present until it has been silent for the idle time, which its count of messages shows.
"""

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
        if self.watched_count >= self.watched_max:
            self.counters.count("dropped", "idle_endpoints_full")
            self.unwatch(self.first_watched)
        endpoint.watched = True
        endpoint.watched_as = app_version
        endpoint.messages_seen = endpoint.traffic.messages_in
        endpoint.quiet_looks = 0
        endpoint.next_look = self.now + self.look_period
        self.endpoints.hold(endpoint)
        self.append(endpoint)
        return self.appear(endpoint, app_version)

    cdef int unwatch(self, Endpoint endpoint) except -1:
        """End the presence of an idle endpoint. Its sessions stay; the next message of one watches it again."""
        cdef Session session
        self.remove(endpoint)
        endpoint.watched = False
        for session in endpoint.all_sessions():
            if session.connectionless:
                session.forget_last_route()
        self.disappear(endpoint, endpoint.watched_as)
        return self.endpoints.release(endpoint)

    cdef int append(self, Endpoint endpoint) except -1:
        """Add an endpoint at the end of those that are watched: it is the last one to be looked at."""
        endpoint.watched_before = self.last_watched
        if self.last_watched is None:
            self.first_watched = endpoint
        else:
            self.last_watched.watched_after = endpoint
        self.last_watched = endpoint
        self.watched_count += 1
        return 0

    cdef int remove(self, Endpoint endpoint) except -1:
        """Remove an endpoint from those that are watched."""
        cdef Endpoint before = endpoint.watched_before, after = endpoint.watched_after
        endpoint.watched_before = endpoint.watched_after = None
        if before is None:
            self.first_watched = after
        else:
            before.watched_after = after
        if after is None:
            self.last_watched = before
        else:
            after.watched_before = before
        self.watched_count -= 1
        return 0

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
            endpoint = self.first_watched
            if endpoint is None or endpoint.next_look > now:
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
                self.remove(endpoint)
                self.append(endpoint)
        return True

    def end(self):
        """End the presence of all watched endpoints, because the worker ends."""
        while self.first_watched is not None:
            self.unwatch(self.first_watched)
