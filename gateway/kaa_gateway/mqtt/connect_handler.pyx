"""What happens from CONNECT to CONNACK: who may connect, and with which session.

Anonymous clients often share a client identifier. Those whose will names an endpoint can be told apart all the same:
`by_will` has their connections.

Source: MQTT 3.1.1 sections 3.1 and 3.2; MQTT 5 sections 3.1 and 3.2.
"""

from functools import partial

from libc.stdint cimport uint64_t

from kaa_gateway.counters cimport MQTT
from kaa_gateway.fleet.directory cimport SessionDirectory, name_of
from kaa_gateway.mqtt.client_options cimport connack_properties, options_of
from kaa_gateway.mqtt.connection cimport AUTHENTICATING, CONNECTED, ENDED
from kaa_gateway.mqtt.publish_properties cimport check_properties
from kaa_gateway.mqtt.session cimport OFFLINE
from kaa_gateway.mqtt.session_entry cimport SessionEntry, WillEntry
from kaa_gateway.mqtt.will cimport will_of
from kaa_gateway.wire.buffer cimport Slice, slice_of
from kaa_gateway.wire.mqtt cimport (
    ACCEPTED, IDENTIFIER_REJECTED, LEVEL_3_1, LEVEL_3_1_1, LEVEL_5, NOT_AUTHORIZED, SERVER_UNAVAILABLE, SUCCESS,
    UNACCEPTABLE_PROTOCOL_VERSION, append_connack, read_connect,
)
from kaa_gateway.wire.mqtt_fields cimport check_control_characters, violation
from kaa_gateway.wire.mqtt_properties cimport AUTHENTICATION_DATA, AUTHENTICATION_METHOD, has

from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.clients import ANONYMOUS_CLIENT, Client, Presentation
from kaa_gateway.mqtt import reason_codes

cdef enum:
    CONNACK_OVERHEAD = 5    # bytes of a CONNACK beside its properties
    SERVER_ERROR = 500      # statuses from here on are not the client's fault

cdef Slice NOTHING = Slice(NULL, 0)


cdef class ConnectHandler:
    """Handles the CONNECT packets of a worker's clients, and decides which session each gets."""

    def __init__(
        self, Uplink uplink, Sessions sessions, MqttSessionStore store, Counters counters, authenticator,
        MqttLimits limits, bint authenticates, double keep_alive_max, uint8_t control_character_level,
    ):
        self.uplink = uplink
        self.sessions = sessions
        self.store = store
        self.counters = counters
        self.authenticator = authenticator
        self.limits = limits
        self.authenticates = authenticates
        self.keep_alive_max = keep_alive_max
        self.control_character_level = control_character_level
        self.scratch = Buffer()
        self.properties = Buffer()
        self.by_will = {}
        if store.directory is not None:
            store.directory.on_offer = self.take_offer

    cdef int on_connect(self, MqttConnection connection, const Packet* packet) except -1:
        """Check a CONNECT, and authenticate its client (3.1.4)."""
        cdef ConnectView connect
        cdef ClientOptions options
        connection.level = LEVEL_3_1_1
        try:
            read_connect(packet, &connect)
        finally:
            if connect.level in (LEVEL_3_1, LEVEL_5):
                connection.level = connect.level
        if connect.level not in (LEVEL_3_1, LEVEL_3_1_1, LEVEL_5):
            return self.refuse(
                connection, UNACCEPTABLE_PROTOCOL_VERSION, SUCCESS, "mqtt_unacceptable_protocol_version"
            )
        if connect.client_id.size == 0 and (
                connect.level == LEVEL_3_1 or (connect.level == LEVEL_3_1_1 and not connect.clean_session)):
            return self.refuse(connection, IDENTIFIER_REJECTED, SUCCESS, "mqtt_identifier_rejected")
        self.check_connect(connection, &connect)
        options = options_of(&connect, self.limits.session_expiry, self.keep_alive_max)
        connection.client_id = options.client_id
        connection.expiry_asked = options.session_expiry_asked != 0
        connection.keep_alive = options.keep_alive_granted
        connection.will = will_of(&connect)
        if connection.will is not None:
            connection.will_key = self.uplink.router.named_by_filter(connect.will_topic)
        connection.state = AUTHENTICATING
        if connection.transport.client is not None:
            return self.admit(connection, connection.transport.client, options)
        if not self.authenticates and connection.transport.certificate is None:
            return self.admit(connection, ANONYMOUS_CLIENT, options)
        if self.authenticates and self.known_clients is not None and connect.user_name.data != NULL:
            client = self.known_clients.find(connect.user_name, connect.password, connection.transport.certificate)
            if client is not None:
                return self.admit(connection, client, options)
        return self.authenticate(connection, &connect, options)

    cdef int authenticate(self, MqttConnection connection, const ConnectView* connect, ClientOptions options) except -1:
        """Ask the authenticator who the client is."""
        try:
            known = self.authenticator.authenticate(Presentation(
                "mqtt",
                None if connect.user_name.data == NULL else connect.user_name.data[:connect.user_name.size].decode(),
                None if connect.password.data == NULL else connect.password.data[:connect.password.size],
                connection.transport.certificate,
            ))
        except IdentityError as error:
            return self.refuse_client(connection, error)
        if isinstance(known, Client):
            return self.admit(connection, known, options)
        known.add_done_callback(partial(self.authenticated, connection, options))
        return connection.block()

    cdef int check_connect(self, MqttConnection connection, const ConnectView* connect) except -1:
        """Check what a client may not ask for: of MQTT 5, what CONNACK says that there is not (3.2.2.3)."""
        connection.refuses_control_characters = connection.level >= self.control_character_level
        connection.checks_more = connection.refuses_control_characters or connection.level >= LEVEL_5
        if connection.refuses_control_characters:
            check_control_characters(connect.client_id)
            check_control_characters(connect.user_name)
            check_control_characters(connect.will_topic)
        if has(&connect.properties, AUTHENTICATION_METHOD):
            violation("authentication_method")
        if has(&connect.properties, AUTHENTICATION_DATA):
            violation("authentication_data")
        if connection.level >= LEVEL_5 and connect.will_retain:
            violation("retain")
        return check_properties(&connect.will_properties, connect.will_message)

    def authenticated(self, MqttConnection connection not None, ClientOptions options not None, future):
        """Admit or refuse the client, then handle what it has sent meanwhile."""
        if connection.state != AUTHENTICATING:
            future.exception()  # asyncio logs exceptions that are not retrieved
            return
        try:
            client = future.result()
        except IdentityError as error:
            self.refuse_client(connection, error)
            return
        self.admit(connection, client, options)
        if connection.state != AUTHENTICATING:
            connection.resume()

    cdef int refuse_client(self, MqttConnection connection, error) except -1:
        """Refuse a client that is not authenticated, or cannot be now."""
        if error.status < SERVER_ERROR:
            return self.refuse(connection, NOT_AUTHORIZED, reason_codes.NOT_AUTHORIZED, error.reason)
        return self.refuse(connection, SERVER_UNAVAILABLE, reason_codes.SERVER_UNAVAILABLE, error.reason)

    cdef int refuse(
        self, MqttConnection connection, uint8_t return_code, uint8_t reason_code, str reason
    ) except -1:
        """Send CONNACK with a return code other than 0, of MQTT 5 with a reason code, and close (3.2.2.3)."""
        self.counters.count("closed", reason)
        connection.end_reason = reason
        append_connack(
            connection.output, connection.level, False, reason_code if connection.level >= LEVEL_5 else return_code,
            NOTHING,
        )
        connection.will = None
        connection.state = ENDED
        return connection.transport.close()

    cdef int admit(self, MqttConnection connection, client, ClientOptions options) except -1:
        """End what the client has left behind, on all workers, and bind the connection to a session.

        A session that the client may find again is claimed from other workers. That takes a round trip to NATS, for
        which the connection waits. Other clients are admitted at once.
        """
        cdef SessionDirectory directory = self.store.directory
        cdef SessionEntry entry = None
        if connection.level >= LEVEL_5:
            options.connack = connack_properties(
                options, connection.server.receive_maximum, connection.server.packet_size_max,
                connection.server.topic_alias_maximum,
            )
            if options.packet_size_max and len(options.connack) + CONNACK_OVERHEAD > options.packet_size_max:
                self.counters.count("closed", "mqtt_packet_size_of_client")
                connection.end_reason = "mqtt_packet_size_of_client"
                connection.will = None
                connection.state = ENDED
                return connection.transport.close()
        if directory is not None and options.client_id and directory.is_full():
            return self.refuse(connection, SERVER_UNAVAILABLE, reason_codes.SERVER_BUSY, "sessions_backlog")
        if options.client_id and (client.principal or options.outlives):
            entry = self.wait(connection, client, options)
        self.take_over(connection, client, options)
        if directory is None:
            pass
        elif entry is None:
            if options.client_id:
                self.notify(options.client_id)
        elif options.assigned:
            directory.enter(entry)  # nobody else can have it
        elif directory.begin(entry, not options.clean_start):
            return connection.block()
        self.complete(connection, client, options)
        if entry is not None:
            entry.waiting = None
            connection.entry = None
        return 0

    cdef int notify(self, str client_id) except -1:
        """Discard the session of an anonymous client that is offline, wherever it is, or stored."""
        cdef SessionDirectory directory = self.store.directory
        cdef uint64_t number
        if directory.others.alone and self.store.storage is None:
            return 0
        name = name_of("session", ("", client_id))
        number = directory.numbers.next()
        if self.store.storage is not None:
            self.store.storage.remove_older(name, number)
        return directory.notify(name, number)

    cdef SessionEntry wait(self, MqttConnection connection, client, ClientOptions options):
        """Let a connection wait for the session of its client, in place of another that waits. Return the entry."""
        cdef SessionEntry entry = self.store.clients.find(client.principal, options.client_id)
        if entry is None:
            entry = self.new_entry(client.principal, options.client_id)
        entry.lose()
        entry.client = client
        entry.options = options
        entry.waiting = connection
        connection.entry = entry
        return entry

    cdef SessionEntry new_entry(self, str principal, str client_id):
        """Return the entry of a client that has none."""
        cdef SessionEntry entry = SessionEntry()
        entry.handler = self
        entry.principal = principal
        entry.client_id = client_id
        entry.name = name_of("session", (principal, client_id))
        self.store.clients.put(entry)
        return entry

    def take_offer(self, offer not None):
        """Take the session of an offline client from a worker that stops, unless the client is known here."""
        cdef SessionEntry entry
        if self.store.clients.find(offer.principal, offer.client_id) is None:
            entry = self.new_entry(offer.principal, offer.client_id)
            entry.client = Client(offer.principal, offer.tenant, offer.client)
            self.store.directory.adopt(entry, offer.number)

    cdef int complete(self, MqttConnection connection, client, ClientOptions options) except -1:
        """Bind the connection to a session, and send CONNACK."""
        cdef MqttSession session = self.open_session(connection, client, options)
        cdef bint present = session.state == OFFLINE
        session.protocol = connection.server.protocol
        session.bind(connection, connection.transport, connection.level, options)
        self.sessions.set_online(session, True)
        if connection.entry is not None:
            self.store.keep(connection.entry, session)
        connection.session = session
        connection.state = CONNECTED
        connection.admitted = True
        append_connack(connection.output, connection.level, present, ACCEPTED, slice_of(options.connack))
        connection.transport.wake()
        return session.begin_sending_again() if present else 0

    cdef MqttSession open_session(self, MqttConnection connection, client, ClientOptions options):
        """Return the stored session of a client that resumes it, or a new one (3.1.2.4)."""
        cdef SessionEntry entry = connection.entry
        cdef MqttSession session = None
        if entry is not None:
            session = entry.session
        elif not options.assigned:
            session = self.store.find("", options.client_id)  # an authenticated client has an entry
        if session is not None and session.state == OFFLINE:
            if not options.clean_start:
                session.set_client(client)
                self.store.back_online(session)
                session.number = entry.number
                return session
            self.store.discard(session)
        session = self.new_session(client, options.client_id)
        if entry is not None:
            self.store.add(entry, session)
        return session

    cdef MqttSession new_session(self, client, str client_id):
        """Return a new session of a client, which its client cannot find again yet."""
        cdef MqttSession session = MqttSession.__new__(MqttSession)
        session.counters = self.counters
        session.protocol = MQTT
        session.limits = self.limits
        session.scratch = self.scratch
        session.properties = self.properties
        session.store = self.store
        session.set_client(client)
        session.client_id = client_id
        self.sessions.open(session)
        return session

    cdef int take_over(self, MqttConnection connection, client, ClientOptions options) except -1:
        """Close the connection that the client has left behind, if there is one (3.1.4). Its will comes first.

        Clients without a client identifier are always different ones (3.1.3.1). Whole fleets share one client
        identifier, so an equal one is the same client only with the same authenticated principal; of anonymous clients
        if both ask for a session that outlives them, or if the wills of both name the same endpoint.
        """
        cdef MqttSession session
        cdef MqttConnection other
        if options.assigned:
            connection.will_key = None
            return 0
        if connection.entry is not None:
            session = connection.entry.session
            if session is not None and session.connection is not None:
                (<MqttConnection>session.connection).taken_over(not options.clean_start)
        if connection.will_key is None or client.principal:
            connection.will_key = None
            return 0
        connection.will_key = (options.client_id, *connection.will_key)
        other = self.by_will.get(connection.will_key)
        if other is not None:
            other.taken_over(False)
        self.by_will[connection.will_key] = connection
        return self.announce_will(connection)

    cdef int announce_will(self, MqttConnection connection) except -1:
        """Have other workers close the connection that the client, which its will tells apart, has left behind."""
        cdef WillEntry entry
        cdef bytes app_version, token
        if self.store.directory is None:
            return 0
        client_id, app_version, token = connection.will_key
        entry = WillEntry()
        entry.name = name_of("will", (client_id, app_version.decode(), token.decode()))
        entry.connection = connection
        connection.will_entry = entry
        return self.store.directory.announce(entry)

    cdef int forget(self, MqttConnection connection) except -1:
        """Forget a connection that ends."""
        if connection.will_key is not None and self.by_will.get(connection.will_key) is connection:
            del self.by_will[connection.will_key]
        if connection.will_entry is not None:
            self.store.directory.leave(connection.will_entry)
            connection.will_entry = None
        return 0
