"""The clients of a worker in the directory that all workers share: what happens to a session when its client connects
to another worker, and when it connects here.

Who has a session is agreed in kaa_gateway.fleet; the state that moves is in session_transfer.pyx.

Source: MQTT 3.1.1 sections 3.1.2.4 (Clean Session) and 3.1.4; MQTT 5 sections 3.1.2.4 (Clean Start) and 3.1.4.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.kp.session cimport Attachment
from kaa_gateway.mqtt.connection cimport AUTHENTICATING
from kaa_gateway.mqtt.moved_session cimport MovedSession
from kaa_gateway.mqtt.session cimport OFFLINE
from kaa_gateway.mqtt.session_transfer cimport put_state, take_state
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.mqtt cimport SERVER_UNAVAILABLE
from kaa_gateway.wire.nats cimport ServerMessage

from kaa_gateway.mqtt import reason_codes


cdef class SessionEntry(DirectoryEntry):
    """A client that can find its session again: its session, or its CONNECT that waits for other workers."""

    cdef bint is_wanted(self) noexcept:
        return self.waiting is not None or self.session is not None

    cdef bint holds(self) noexcept:
        return self.session is not None

    cdef int lose(self) except -1:
        """Refuse the CONNECT that waits: the client has made a newer one."""
        cdef MqttConnection connection = self.waiting
        if connection is None:
            return 0
        self.waiting = None
        connection.entry = None
        return self.handler.refuse(
            connection, SERVER_UNAVAILABLE, reason_codes.SERVER_BUSY, "mqtt_taken_over"
        )

    cdef int resolved(self, bytes state, uint64_t number) except -1:
        """Admit the client, with the state of its session if there is one."""
        cdef MqttConnection connection = self.waiting
        if connection is not None and connection.state != AUTHENTICATING:
            connection = self.waiting = None
        if state is not None and (connection is None or not self.options.clean_start):
            self.adopt(state, number)
        if connection is None:
            return self.discarded()
        self.handler.complete(connection, self.client, self.options)
        self.waiting = None
        connection.entry = None
        return connection.resume()

    cdef MqttSession adopt(self, bytes state, uint64_t number):
        """Return a session with a state of another worker, whose client is offline; or None.

        Of it and a session that is here already, the one from the younger CONNECT is kept.
        """
        cdef MqttSession session
        if self.session is not None:
            if self.session.number > number:
                self.handler.counters.count("dropped", "session_left_behind")
                return self.session
            self.handler.counters.count("dropped", "session_left_behind")
            self.handler.store.forget(self.session)
        session = self.handler.new_session(self.client, self.client_id)
        if not put_state(session, state, self.handler.uplink):
            self.handler.counters.count("dropped", "session_state_malformed")
            self.handler.sessions.close(session)
            return None
        self.handler.store.add(self, session)
        session.offline_since = self.handler.store.directory.loop.time()
        self.handler.store.keep_offline(session)
        if self.session is session:
            self.handler.store.keep(self, session)
        return self.session

    cdef int hand_over(self, bytes state, uint64_t number) except -1:
        """Close the connection of the client, its will first, and give its state away when it is at rest."""
        cdef MqttSession session = self.session
        if session is not None and session.number < number:
            self.handler.counters.count("dropped", "session_left_behind")
            self.handler.store.forget(session)
        if self.session is None:
            return self.handler.store.directory.give(self, state if self.yields_state else None, number)
        if session.connection is not None:
            (<MqttConnection>session.connection).taken_over(self.yields_state)
        if self.session is not None and not self.yields_state:
            self.handler.store.discard(session)
        # A session that has ended meanwhile has been given away as nothing.
        if self.yielded_to is None:
            return 0
        if session.acks_due == 0 and session.waiting_count == 0:
            return self.give()
        # What is acknowledged soon is not sent again, and so not taken for another message there. What waits for the
        # identity of its endpoint, such as the will, goes before what the client sends there.
        session.resume_wanted = session.waiting_count > 0
        self.handler.store.give_later(self)
        return 0

    cdef int acknowledged(self) except -1:
        """Give the state away that has waited for this: NATS has all messages of the client, or they are under way."""
        if self.yielded_to is not None and self.claim is None:
            return self.give()
        return 0

    cdef int give(self) except -1:
        """Give the state away, and forget the session."""
        cdef MqttSession session = self.session
        cdef bytes state = take_state(session)
        cdef MovedSession moved = self.departure(session)
        self.handler.store.forget(session)
        if moved is not None:
            self.handler.store.downlink.departures.add(moved, self.handler.store.directory.loop.time())
        return self.handler.store.directory.give(self, state, session.number)

    cdef MovedSession departure(self, MqttSession session):
        """Return what sends messages after a session that goes to another worker, or None."""
        cdef Attachment attachment
        cdef MovedSession moved
        if self.handler.store.downlink is None:
            return None
        moved = MovedSession()
        moved.directory = self.handler.store.directory
        moved.name = self.name
        moved.key = session.key
        moved.endpoint_ids = []
        for attachment in session.all_attachments():
            moved.endpoint_ids.append(attachment.endpoint.endpoint_id)
        return moved

    cdef bint receive_forwarded(self, message) except -1:
        """Deliver a message that has come to a former worker of the session."""
        cdef ServerMessage received
        cdef bytes header = message.header, datum = message.datum
        cdef bint correlated = message.service is not None
        cdef int service = message.service if correlated else 0
        if self.session is None or self.handler.store.downlink is None:
            return False
        memset(&received, 0, sizeof(received))
        received.header = slice_of(header)
        received.payload = slice_of(datum)
        return self.handler.store.downlink.deliver_forwarded(
            self.session, &received, correlated, <Service>service, message.sequence
        )

    def give_now(self):
        """Give the state away, if that has not been done: what has not been acknowledged will be sent again."""
        if self.session is not None:
            self.acknowledged()

    cdef int discarded(self) except -1:
        """Leave the directory if the client has no session here any more, and none waits."""
        if self.session is not None or self.waiting is not None or self.claim is not None:
            return 0
        if self.yielded_to is not None:
            return self.handler.store.directory.give(self, None, 0)
        return self.handler.store.remove(self)

    cdef int left(self) except -1:
        return self.handler.store.remove(self)

    cdef int supersede(self) except -1:
        """Discard the session: the client has a newer one on another worker."""
        cdef MqttSession session = self.session
        if session is None:
            return self.discarded()
        self.handler.counters.count("dropped", "session_left_behind")
        if session.connection is not None:
            (<MqttConnection>session.connection).taken_over(True)
        if self.session is session:
            self.handler.store.forget(session)
        return self.discarded()

    cdef int notice(self) except -1:
        """Discard the session of an offline client, which has connected elsewhere with a clean session (3.1.2.4)."""
        if self.session is not None and self.session.state == OFFLINE and self.yielded_to is None:
            return self.handler.store.discard(self.session)
        return 0


cdef class WillEntry(DirectoryEntry):
    """A connection of an anonymous client that only its will tells apart from others."""

    cdef int notice(self) except -1:
        """Close the connection: the client has made another one, on another worker."""
        return self.connection.taken_over(False)

    cdef int supersede(self) except -1:
        return self.connection.taken_over(False)

    cdef int hand_over(self, bytes state, uint64_t number) except -1:
        self.connection.taken_over(False)
        return 0
