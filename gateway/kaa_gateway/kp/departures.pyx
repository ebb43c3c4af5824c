"""Sessions that have gone to other workers lately: what still comes for them here is sent after them.

An answer comes to the worker that has sent its request. A push comes to all workers at once, and the new worker of a
session may get it before the session. So the former worker forwards both for a while. The new worker drops a push that
it had before. While no session has moved lately, a message costs one comparison.

How a message is sent to another worker is the business of the session's protocol, whose class overrides `forward`.
"""

cdef enum:
    DEPARTURES_MAX = 20_000      # the oldest is forgotten for a new one

cdef double PUSHES_TIME = 5.0    # seconds; later, all NATS servers have delivered what was published before the move
cdef double ANSWERS_TIME = 60.0  # seconds; extensions answer sooner


cdef class Departure:
    """A session that has gone to another worker; a base class whose method does nothing."""

    cdef bint forward(
        self, const ServerMessage* message, bint correlated, Service service, uint32_t sequence
    ) except -1:
        """Send an ExtensionData after the session: an answer to the message of a `sequence`, or a push.

        Return False if nobody knows where the session is.
        """
        return False


cdef class Departures:
    """The sessions that have gone from a worker lately."""

    def __init__(self):
        self.by_key = {}
        self.by_endpoint = {}

    def __len__(self):
        return self.count

    cdef int add(self, Departure departure, double now) except -1:
        """Forward what comes for a session from now on. It has a key that no session has any more."""
        cdef bytes endpoint_id
        if self.count >= DEPARTURES_MAX:
            self.remove(<Departure>next(iter(self.by_key.values())))
        departure.pushes_until = now + PUSHES_TIME
        departure.answers_until = now + ANSWERS_TIME
        self.by_key[departure.key] = departure
        for endpoint_id in departure.endpoint_ids:
            self.by_endpoint.setdefault(endpoint_id, {})[departure] = None
        self.count = len(self.by_key)
        return 0

    cdef int remove(self, Departure departure) except -1:
        """Forward nothing more."""
        cdef bytes endpoint_id
        del self.by_key[departure.key]
        for endpoint_id in departure.endpoint_ids:
            departures = self.by_endpoint.get(endpoint_id)
            if departures is not None and departure in departures:
                del departures[departure]
                if not departures:
                    del self.by_endpoint[endpoint_id]
        self.count = len(self.by_key)
        return 0

    def expire(self, double now):
        """Forget the departures of some time ago; call this about once a second, with the loop's time."""
        while self.by_key:
            departure = <Departure>next(iter(self.by_key.values()))
            if departure.answers_until > now:
                break
            self.remove(departure)

    cdef bint forward_answer(
        self, uint64_t key, const ServerMessage* message, Service service, uint32_t sequence
    ) except -1:
        """Send an answer after the session of a key. Return False if that has not departed."""
        departure = self.by_key.get(key)
        return departure is not None and (<Departure>departure).forward(message, True, service, sequence)

    cdef bint forward_push(self, Slice endpoint_id, const ServerMessage* message, double now) except -1:
        """Send a push after the sessions of an endpoint. Return whether there is one."""
        cdef Departure departure
        cdef bint forwarded = False
        if endpoint_id.data == NULL:
            return False
        departures = self.by_endpoint.get(endpoint_id.data[:endpoint_id.size])
        if departures is None:
            return False
        for departure in list(departures):
            if departure.pushes_until > now and departure.forward(message, False, <Service>0, 0):
                forwarded = True
        return forwarded
