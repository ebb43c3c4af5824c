"""One MQTT connection: packets in their legal order, keep-alive, the will, session take-over.

The gateway is no broker: a PUBLISH goes to an extension or nowhere, and every well-formed topic filter is granted,
because delivery does not depend on it (session.pyx). PUBACK and PUBREC are sent when NATS has confirmed the message.

One code serves MQTT 3.1, 3.1.1 and 5: what is of 5 alone hangs on properties, which the others do not have.

Source: MQTT 3.1.1 (OASIS), whose section numbers the comments cite; MQTT 5 (OASIS), where they say so; 1/KP.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from kaa_gateway.counters cimport MQTT
from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.kp.uplink cimport BUSY, BY_ATTACHMENT, IGNORED, AliasedTopic, Message, Outcome
from kaa_gateway.mqtt.client_options cimport ClientOptions, connack_properties, options_of
from kaa_gateway.mqtt.received cimport ReceivedMessage, ReceivedMessages, digest_of
from kaa_gateway.mqtt.response_topics cimport ResponseTopics
from kaa_gateway.mqtt.session cimport (
    ATTACHMENT_MASK, OF_ACKNOWLEDGED, OF_REQUEST, OFFLINE, PACKET_ID_SHIFT, REQUEST_MASK,
)
from kaa_gateway.mqtt.topic_aliases cimport TopicAliases
from kaa_gateway.mqtt.will cimport will_of
from kaa_gateway.net.input_memory cimport INPUT_FREE
from kaa_gateway.net.transport cimport Transport
from kaa_gateway.wire.buffer cimport Slice, slice_of
from kaa_gateway.wire.mqtt cimport (
    ACCEPTED, AUTH, CONNECT, CONNECT_SIZE_MAX, DISCONNECT, IDENTIFIER_REJECTED, LEVEL_3_1, LEVEL_3_1_1, LEVEL_5,
    NO_MATCHING_SUBSCRIBERS, NOT_AUTHORIZED, PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL,
    SERVER_UNAVAILABLE, SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, SUBACK, SUBSCRIBE, SUCCESS, UNACCEPTABLE_PROTOCOL_VERSION,
    UNSUBACK, UNSUBSCRIBE, DisconnectView, TopicFilter, append_ack, append_connack, append_disconnect, append_empty,
    append_filter_ack, can_be_connect, check_flags, first_filter, next_filter, next_packet, read_connect,
    read_disconnect, read_empty, read_packet_id, read_publish,
)
from kaa_gateway.wire.mqtt_fields cimport check_control_characters, check_topic_name, variable_size, violation
from kaa_gateway.wire.mqtt_properties cimport (
    AUTHENTICATION_DATA, AUTHENTICATION_METHOD, CORRELATION_DATA, MESSAGE_EXPIRY_INTERVAL, PAYLOAD_FORMAT_INDICATOR,
    RESPONSE_TOPIC, SERVER_REFERENCE, SESSION_EXPIRY_INTERVAL, SUBSCRIPTION_IDENTIFIER, TOPIC_ALIAS, USER_PROPERTY,
    Properties, append_text, has, user_property,
)

from kaa_gateway.errors import IdentityError, ProtocolError
from kaa_gateway.identity.clients import Client, Presentation
from kaa_gateway.mqtt import reason_codes

cdef enum:
    FILTERS_PER_SLICE = 512  # topic filters that are handled before the event loop goes on
    TAIL_KEEP = 4096        # bytes of buffer that a connection keeps between incomplete packets
    CONNACK_OVERHEAD = 5    # bytes of a CONNACK beside its properties
    FILTER_ACK_OVERHEAD = 8  # bytes of a SUBACK or UNSUBACK beside its reason codes, at most
    TRACEPARENT_SIZE = 55   # bytes, of W3C Trace Context version 00
    TIMEOUT_NOW = 1         # ms, of a message that expires at once
    SERVER_ERROR = 500      # statuses from here on are not the client's fault

cdef double KEEP_ALIVE_GRACE = 1.5   # section 3.1.2.10
cdef double HALF_CLOSED_TIME = 10.0  # seconds that a client which has closed its sending side waits for its answers


cdef Slice NOTHING = Slice(NULL, 0)


cdef class MqttConnection(ProtocolCore):
    """The protocol core of one MQTT connection."""

    def __init__(self, MqttServer server not None, Transport transport not None):
        self.server = server
        self.transport = transport
        self.level = LEVEL_3_1_1
        self.last_active = server.loop.time()

    # ------------------------------------------------------------ bytes

    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Handle the packets in `data`, borrowed for the call, and keep the rest. Hot path."""
        cdef Py_ssize_t taken
        self.active = True
        if self.state == ENDED:
            return 0
        if self.tail is not None and self.tail.size:
            self.tail.append(data, size)
            return self.parse_tail()
        taken = self.parse(data, size)
        if taken < size and self.state != ENDED:
            if self.tail is None:
                self.tail = Buffer()
            self.tail.append(data + taken, size - taken)
            return self.count_tail()
        return 0

    cdef bint input_fits(self) noexcept:
        """Count the memory of the tail, unacknowledged messages and aliases. Return False if that is too much."""
        cdef Py_ssize_t size = 0 if self.tail is None else self.tail.capacity
        if self.session is not None and self.session.received is not None:
            size += self.session.received.memory()
        if self.aliases is not None:
            size += self.aliases.bytes
        if size <= INPUT_FREE and self.input_counted == 0:
            return True
        return self.server.input_memory.reserve(self, size)

    cdef int count_tail(self) except -1:
        """Count the memory of the tail, which has grown or shrunk."""
        if not self.input_fits():
            self.tail.clear(0)
            violation("input_memory_full")
        return 0

    cdef int parse_tail(self) except -1:
        """Handle the packets in the tail."""
        cdef Py_ssize_t taken
        # Packets are handled while the tail's bytes are borrowed: nothing may append to it meanwhile.
        taken = self.parse(self.tail.data, self.tail.size)
        if taken == self.tail.size or self.state == ENDED:
            self.tail.clear(TAIL_KEEP)
        else:
            self.tail.consume(taken)
        return self.count_tail()

    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Handle whole packets until none is left or the connection is blocked. Return the bytes taken. Hot path."""
        cdef Packet packet
        cdef Py_ssize_t at = 0, consumed, limit
        cdef uint64_t taken = 0
        self.filters_left = FILTERS_PER_SLICE
        while at < size and not self.blocked and self.state != ENDED:
            limit = self.server.packet_size_max
            if self.state == AWAITING_CONNECT:
                # Nothing is kept of a peer that does not begin with CONNECT (3.1; CVE-2023-0809).
                if not can_be_connect(data + at, size - at):
                    violation("first_packet_not_connect")
                limit = min(limit, <Py_ssize_t>CONNECT_SIZE_MAX)
            consumed = next_packet(data + at, size - at, limit, &packet)
            if self.checks_more and consumed and consumed > 1 + variable_size(packet.body.size) + packet.body.size:
                self.check_remaining_length()
            if consumed == 0 or not self.handle(&packet):
                break
            at += consumed
            taken += 1
        self.taken += taken
        return at

    cdef int check_remaining_length(self) except -1:
        """Refuse a Remaining Length of more bytes than it needs, which only MQTT 5 forbids (1.5.5)."""
        return violation("malformed_variable_integer") if self.level >= LEVEL_5 else 0

    cdef bint handle(self, const Packet* packet) except -1:
        """Handle a packet. Return False if it cannot be taken now and must be offered again. Hot path."""
        cdef uint16_t packet_id
        cdef uint8_t reason_code
        if packet.type == PUBLISH and self.state == CONNECTED:
            return self.on_publish(packet)
        if packet.type == CONNECT:
            if self.state != AWAITING_CONNECT:
                violation("second_connect")
            self.on_connect(packet)
        elif packet.type == PUBACK:
            self.session.on_puback(<uint16_t>read_packet_id(packet, self.level, &reason_code))
        elif packet.type == PUBREC:
            packet_id = <uint16_t>read_packet_id(packet, self.level, &reason_code)
            self.session.on_pubrec(packet_id, reason_code)
        elif packet.type == PUBREL:
            self.session.on_pubrel(<uint16_t>read_packet_id(packet, self.level, &reason_code))
            if self.input_counted:
                self.input_fits()
        elif packet.type == PUBCOMP:
            self.session.on_pubcomp(<uint16_t>read_packet_id(packet, self.level, &reason_code))
        elif packet.type == SUBSCRIBE:
            return self.on_subscribe(packet)
        elif packet.type == UNSUBSCRIBE:
            return self.on_unsubscribe(packet)
        elif packet.type == PINGREQ:
            read_empty(packet, self.level)
            append_empty(self.output, PINGRESP)
            self.transport.wake()
        elif packet.type == DISCONNECT:
            self.on_disconnect(packet)
        elif packet.type == AUTH and self.level >= LEVEL_5:
            violation("auth")
        else:
            violation("packet_of_the_server")
        return True

    cdef int block(self) except -1:
        """Handle no packets, and read no bytes, until `resume`."""
        self.blocked = True
        return self.transport.pause_reading()

    cdef int resume(self) except -1:
        """Go on after `block`."""
        if not self.blocked or self.state == ENDED:
            return 0
        self.blocked = False
        if self.tail is not None and self.tail.size:
            try:
                self.parse_tail()
            except ProtocolError as error:
                self.server.counters.count("closed", error.reason)
                self.explain(error.reason)
                self.transport.close()
        if self.blocked:
            return 0
        return self.end_of_input() if self.input_ended else self.transport.resume_reading()

    # ------------------------------------------------------------ CONNECT

    cdef int on_connect(self, const Packet* packet) except -1:
        """Check a CONNECT, and authenticate its client (3.1.4)."""
        cdef MqttServer server = self.server
        cdef ConnectView connect
        cdef ClientOptions options
        self.level = LEVEL_3_1_1
        try:
            read_connect(packet, &connect)
        finally:
            if connect.level in (LEVEL_3_1, LEVEL_5):
                self.level = connect.level
        if connect.level not in (LEVEL_3_1, LEVEL_3_1_1, LEVEL_5):
            return self.refuse(UNACCEPTABLE_PROTOCOL_VERSION, SUCCESS, "mqtt_unacceptable_protocol_version")
        if connect.client_id.size == 0 and (
                connect.level == LEVEL_3_1 or (connect.level == LEVEL_3_1_1 and not connect.clean_session)):
            return self.refuse(IDENTIFIER_REJECTED, SUCCESS, "mqtt_identifier_rejected")
        self.check_connect(&connect)
        options = options_of(&connect, server.limits.session_expiry, server.keep_alive_max)
        self.expiry_asked = options.session_expiry_asked != 0
        self.keep_alive = options.keep_alive_granted * KEEP_ALIVE_GRACE
        self.will = will_of(&connect)
        if self.will is not None:
            self.will_key = server.uplink.router.named_by_filter(connect.will_topic)
        self.state = AUTHENTICATING
        try:
            known = server.authenticator.authenticate(Presentation(
                "mqtt",
                None if connect.user_name.data == NULL else connect.user_name.data[:connect.user_name.size].decode(),
                None if connect.password.data == NULL else connect.password.data[:connect.password.size],
                self.transport.certificate,
            ))
        except IdentityError as error:
            return self.refuse_client(error)
        if isinstance(known, Client):
            return self.admit(known, options)
        known.add_done_callback(lambda done: self.authenticated(options, done))
        return self.block()

    cdef int check_connect(self, const ConnectView* connect) except -1:
        """Check what a client may not ask for: of MQTT 5, what CONNACK says that there is not (3.2.2.3)."""
        self.refuses_control_characters = self.level >= self.server.control_character_level
        self.checks_more = self.refuses_control_characters or self.level >= LEVEL_5
        if self.refuses_control_characters:
            check_control_characters(connect.client_id)
            check_control_characters(connect.user_name)
            check_control_characters(connect.will_topic)
        if has(&connect.properties, AUTHENTICATION_METHOD):
            violation("authentication_method")
        if has(&connect.properties, AUTHENTICATION_DATA):
            violation("authentication_data")
        if self.level >= LEVEL_5 and connect.will_retain:
            violation("retain")
        if has(&connect.will_properties, PAYLOAD_FORMAT_INDICATOR):
            check_payload(&connect.will_properties, connect.will_message)
        return 0

    def authenticated(self, ClientOptions options not None, future):
        """Admit or refuse the client, then handle what it has sent meanwhile."""
        if self.state != AUTHENTICATING:
            future.exception()  # asyncio logs exceptions that are not retrieved
            return
        try:
            client = future.result()
        except IdentityError as error:
            self.refuse_client(error)
            return
        self.admit(client, options)
        self.resume()

    cdef int refuse_client(self, error) except -1:
        """Refuse a client that is not authenticated, or cannot be now."""
        if error.status < SERVER_ERROR:
            return self.refuse(NOT_AUTHORIZED, reason_codes.NOT_AUTHORIZED, error.reason)
        return self.refuse(SERVER_UNAVAILABLE, reason_codes.SERVER_UNAVAILABLE, error.reason)

    cdef int refuse(self, uint8_t return_code, uint8_t reason_code, str reason) except -1:
        """Send CONNACK with a return code other than 0, of MQTT 5 with a reason code, and close (3.2.2.3)."""
        self.server.counters.count("closed", reason)
        append_connack(self.output, self.level, False, reason_code if self.level >= LEVEL_5 else return_code, NOTHING)
        self.will = None
        self.state = ENDED
        return self.transport.close()

    cdef int admit(self, client, ClientOptions options) except -1:
        """Bind the connection to a session, and send CONNACK."""
        cdef MqttServer server = self.server
        cdef MqttSession session
        cdef bytes properties = None
        cdef bint present
        if self.level >= LEVEL_5:
            properties = connack_properties(
                options, server.receive_maximum, server.packet_size_max, server.topic_alias_maximum
            )
            if options.packet_size_max and len(properties) + CONNACK_OVERHEAD > options.packet_size_max:
                server.counters.count("closed", "mqtt_packet_size_of_client")
                self.will = None
                self.state = ENDED
                return self.transport.close()
        session = self.open_session(client, options)
        present = session.state == OFFLINE
        session.bind(self, self.transport, self.level, options)
        server.sessions.set_online(session, True)
        self.session = session
        self.state = CONNECTED
        self.admitted = True
        append_connack(self.output, self.level, present, ACCEPTED, slice_of(properties))
        self.transport.wake()
        return session.begin_sending_again() if present else 0

    cdef int take_over(self, client, ClientOptions options) except -1:
        """Close the connection that the client has left behind, if there is one (3.1.4). Its will comes first.

        Clients without a client identifier are always different ones (3.1.3.1). Whole fleets share one client
        identifier, so an equal one is the same client only with the same authenticated principal; of anonymous clients
        if both ask for a session that outlives them, or if the wills of both name the same endpoint.
        """
        cdef MqttServer server = self.server
        cdef str principal = client.principal
        cdef MqttSession session
        cdef MqttConnection other
        if options.assigned:
            self.will_key = None
            return 0
        session = server.store.find(principal, options.client_id)
        if session is not None and session.connection is not None and (principal or options.outlives):
            (<MqttConnection>session.connection).taken_over(not options.clean_start)
        if principal or self.will_key is None:
            self.will_key = None
            return 0
        self.will_key = (options.client_id, *self.will_key)
        other = server.by_will.get(self.will_key)
        if other is not None:
            other.taken_over(False)
        server.by_will[self.will_key] = self
        return 0

    cdef MqttSession open_session(self, client, ClientOptions options):
        """Return the stored session of a client that resumes it, or a new one (3.1.2.4)."""
        cdef MqttServer server = self.server
        cdef str principal = client.principal
        cdef MqttSession session = None
        self.take_over(client, options)
        if not options.assigned:
            session = server.store.find(principal, options.client_id)
        if session is not None and session.state == OFFLINE:
            if not options.clean_start:
                server.store.back_online(session)
                return session
            server.store.discard(session)
        session = MqttSession()
        session.counters = server.counters
        session.protocol = MQTT
        session.limits = server.limits
        session.scratch = server.scratch
        session.properties = server.properties
        session.store = server.store
        session.principal = principal
        session.client = client.client_id
        session.tenant = client.tenant
        session.client_id = options.client_id
        server.sessions.open(session)
        if options.client_id and (principal or options.outlives):
            server.store.add(session)
        return session

    # ------------------------------------------------------------ the end, told to the client

    cdef int on_disconnect(self, const Packet* packet) except -1:
        """The client ends the connection: of MQTT 5 perhaps with its will, or another session expiry (3.14)."""
        cdef DisconnectView disconnect
        cdef uint32_t expiry
        read_disconnect(packet, self.level, &disconnect)
        if has(&disconnect.properties, SERVER_REFERENCE):
            violation("forbidden_property")
        if has(&disconnect.properties, SESSION_EXPIRY_INTERVAL):
            expiry = disconnect.properties.number[<int>SESSION_EXPIRY_INTERVAL]
            if expiry and not self.expiry_asked:
                violation("session_expiry_after_0")
            self.session.expiry = min(<double>expiry, self.server.limits.session_expiry)
            self.session.clean = self.session.expiry == 0
        if disconnect.reason_code == SUCCESS:
            self.will = None
        self.state = ENDED
        return self.transport.close()

    cdef int disconnect(self, uint8_t reason_code) except -1:
        """Tell a client of MQTT 5 why its connection ends (3.14)."""
        cdef bytes reference = self.server.server_reference
        cdef Buffer properties = Buffer()
        if self.level < LEVEL_5 or self.state == ENDED:
            return 0
        if reason_code == reason_codes.USE_ANOTHER_SERVER:
            append_text(properties, SERVER_REFERENCE, slice_of(reference))
        if self.session is not None:
            append_disconnect(self.output, reason_code, Slice(properties.data, properties.size))
        else:
            append_connack(self.output, self.level, False, reason_code, Slice(properties.data, properties.size))
        return self.transport.wake()

    cdef int explain(self, str reason) except -1:
        """Tell the client which violation ends its connection."""
        if self.state != AWAITING_CONNECT or self.level >= LEVEL_5:
            self.disconnect(reason_codes.code_of_violation(reason))
        self.state = ENDED
        return 0

    cdef int explain_stop(self) except -1:
        """Tell the client that the gateway stops, and where to go if that is configured."""
        if self.state == CONNECTED:
            self.disconnect(
                reason_codes.SERVER_SHUTTING_DOWN if self.server.server_reference is None
                else reason_codes.USE_ANOTHER_SERVER
            )
        return 0

    cdef int end(self, str reason) except -1:
        """Close the connection and discard its session. The will is not published."""
        self.server.counters.count("closed", reason)
        self.will = None
        self.disconnect(reason_codes.code_of_end(reason))
        self.leave_session(True)
        self.state = ENDED
        return self.transport.close()

    cdef int taken_over(self, bint resumes) except -1:
        """Close this connection, because its client has made another one (3.1.4), which resumes the session or not."""
        self.server.counters.count("closed", "mqtt_taken_over")
        self.disconnect(reason_codes.code_of_end("mqtt_taken_over"))
        self.publish_will(not resumes)
        self.leave_session(False)
        self.state = ENDED
        return self.transport.close()

    # ------------------------------------------------------------ PUBLISH

    cdef bint on_publish(self, const Packet* packet) except -1:
        """Forward a PUBLISH. Return False if the uplink cannot take it now. Hot path."""
        cdef PublishView publish
        cdef Message message
        cdef MqttSession session = self.session
        cdef PyObject* alias = NULL
        cdef Outcome outcome
        read_publish(packet, self.level, &publish)
        if self.checks_more:
            alias = self.check_publish(&publish)
        else:
            check_topic_name(publish.topic)
        message = message_of(publish.topic, publish.payload, publish.qos)
        if publish.qos:
            if publish.qos == 1 and self.level < LEVEL_5:
                message.token = <uint32_t>PUBACK << 16 | publish.packet_id
            elif not self.track(&publish, &message):
                return True
        if publish.properties.present & ~(1ULL << <int>TOPIC_ALIAS):
            self.apply_properties(&publish, &message)
        if alias != NULL:
            outcome = self.server.uplink.publish_aliased(session, &message, <AliasedTopic>alias)
        else:
            outcome = self.server.uplink.publish(session, &message)
        if outcome == BUSY:
            if message.token >> 24:
                session.received.discard(publish.packet_id)
            if publish.properties.present and has(&publish.properties, RESPONSE_TOPIC):
                session.responses.take(message.sequence & REQUEST_MASK)
            self.block()
            return False
        if publish.qos:
            session.acks_due += 1
            if message.token >> 24:
                session.generation = session.generation % 255 + 1
                session.unacknowledged += 1
                if outcome == IGNORED and publish.qos == 1:
                    session.received.find(publish.packet_id).reason_code = NO_MATCHING_SUBSCRIBERS
        return True

    cdef bint track(self, const PublishView* publish, Message* message) except -1:
        """Remember a message until it is acknowledged: one of QoS 2, or of MQTT 5, whose PUBACK may refuse it.

        Return False for a message of QoS 2 that is sent again and needs nothing more.
        """
        cdef MqttSession session = self.session
        cdef ReceivedMessage* received
        cdef uint64_t digest = 0
        if session.received is None:
            session.received = ReceivedMessages()
        if publish.qos == 2:
            digest = digest_of(publish.topic, publish.payload)
            received = session.received.find(publish.packet_id)
            if received != NULL and received.qos == 2 and received.digest == digest:
                # Sent again. It has been forwarded; PUBREC was lost, or is still to be sent (4.3.3).
                if received.confirmed:
                    session.append_acknowledgement(PUBREC, publish.packet_id, SUCCESS)
                    self.transport.wake()
                return False
        if self.level >= LEVEL_5:
            if session.unacknowledged >= self.server.receive_maximum:
                violation("receive_maximum")
            message.sequence = OF_ACKNOWLEDGED | <uint32_t>publish.packet_id << PACKET_ID_SHIFT | BY_ATTACHMENT
            if session.attachments is not None and \
                    len(session.attachments) + session.waiting_count >= ATTACHMENT_MASK:
                # Too many names for the field: the answer gets the one under which the endpoint was used last.
                message.sequence = (message.sequence ^ BY_ATTACHMENT) | ATTACHMENT_MASK
        # A packet identifier in use with another message is that of a client which has lost its state.
        if session.received.reserve() and not self.input_fits():
            violation("input_memory_full")
        received = session.received.put(publish.packet_id)
        received.digest = digest
        received.qos = publish.qos
        received.generation = session.generation % 255 + 1
        received.reason_code = SUCCESS
        received.confirmed = False
        message.token = (
            <uint32_t>received.generation << 24 | <uint32_t>(PUBACK if publish.qos == 1 else PUBREC) << 16
            | publish.packet_id
        )
        return True

    cdef PyObject* check_publish(self, PublishView* publish) except? NULL:
        """Check a PUBLISH of MQTT 5, or of a client whose control characters are refused.

        Return the topic of its alias, borrowed from the connection, or NULL if it has none. Hot path.
        """
        cdef const Properties* properties = &publish.properties
        cdef PyObject* alias = NULL
        if publish.retain and self.level >= LEVEL_5:
            violation("retain")
        if has(properties, TOPIC_ALIAS):
            alias = self.resolve_alias(publish)
        else:
            self.check_topic(publish.topic)
        if has(properties, SUBSCRIPTION_IDENTIFIER):
            violation("subscription_identifier_of_client")
        if has(properties, PAYLOAD_FORMAT_INDICATOR):
            check_payload(properties, publish.payload)
        return alias

    cdef int check_topic(self, Slice topic) except -1:
        """Check a topic name."""
        check_topic_name(topic)
        return check_control_characters(topic) if self.refuses_control_characters else 0

    cdef PyObject* resolve_alias(self, PublishView* publish) except NULL:
        """Return the topic of an alias, which the message sets or uses (MQTT 5, 3.3.2.3.4). Hot path.

        It is borrowed from the connection's aliases.
        """
        cdef uint32_t alias = publish.properties.number[<int>TOPIC_ALIAS]
        cdef PyObject* found = NULL
        if alias == 0 or alias > self.server.topic_alias_maximum:
            violation("topic_alias")
        if self.aliases is None:
            self.aliases = TopicAliases()
        if publish.topic.size == 0:
            found = self.aliases.find(alias)
            if found == NULL:
                violation("topic_alias_unknown")
            publish.topic = slice_of((<AliasedTopic>found).topic)
            return found
        self.check_topic(publish.topic)
        found = self.aliases.set(alias, publish.topic)
        if not self.input_fits():
            violation("input_memory_full")
        return found

    cdef int apply_properties(self, const PublishView* publish, Message* message) except -1:
        """Apply the properties of a PUBLISH of MQTT 5 (3.3.2.3) to its message, and drop the others. Hot path."""
        cdef MqttSession session = self.session
        cdef const Properties* properties = &publish.properties
        cdef Slice correlation_data = NOTHING, traceparent
        if has(properties, MESSAGE_EXPIRY_INTERVAL):
            message.timeout = max(
                <int64_t>properties.number[<int>MESSAGE_EXPIRY_INTERVAL] * 1000, <int64_t>TIMEOUT_NOW
            )
        if has(properties, USER_PROPERTY):
            traceparent = user_property(properties, b"traceparent")
            # The last digit has the flag that says whether the trace is recorded.
            if traceparent.size == TRACEPARENT_SIZE and traceparent.data[TRACEPARENT_SIZE - 1] & 1:
                message.traceparent = traceparent
            if properties.user_property_count > (1 if traceparent.data != NULL else 0):
                self.server.counters.count("ignored", "mqtt_user_property")
        if has(properties, RESPONSE_TOPIC):
            if session.responses is None:
                session.responses = ResponseTopics()
            if has(properties, CORRELATION_DATA):
                correlation_data = properties.text[<int>CORRELATION_DATA]
            message.sequence = OF_REQUEST | session.responses.add(
                properties.text[<int>RESPONSE_TOPIC], correlation_data, publish.packet_id
            )
            message.needs_request_id = True
            session.responses.limit(session.limits.queued_messages, session.limits.queued_bytes, session.counters)
        return 0

    cdef int publish_will(self, bint session_ends) except -1:
        """Publish the will of a client that goes without a DISCONNECT (3.1.2.5), or have the session keep it.

        A will with a delay waits for it, unless the session ends before (MQTT 5, 3.1.3.2.2).
        """
        cdef Will will = self.will
        if will is None or self.session is None:
            return 0
        self.will = None
        if will.delay and not session_ends and not self.session.clean:
            self.session.will = will
            return 0
        return will.publish(self.server.uplink, self.session)

    # ------------------------------------------------------------ SUBSCRIBE, UNSUBSCRIBE

    cdef int begin_filters(self, const Packet* packet) except -1:
        """Check the head of a SUBSCRIBE or UNSUBSCRIBE, unless it is handled already. Return its packet identifier."""
        cdef Properties properties
        if self.filter_at == 0:
            check_flags(packet, self.level)
            self.filter_at = first_filter(packet, self.level, &properties)
            self.return_codes = bytearray()
            self.subscription_identifier = 0
            if has(&properties, SUBSCRIPTION_IDENTIFIER):
                self.subscription_identifier = properties.number[<int>SUBSCRIPTION_IDENTIFIER]
        return packet.body.data[0] << 8 | packet.body.data[1]

    cdef bint may_handle_filter(self) except -1:
        """Return whether to handle one more topic filter now, or to let the event loop go on before."""
        if self.filters_left > 0:
            self.filters_left -= 1
            return True
        self.block()
        self.server.loop.call_soon(self.go_on)
        return False

    def go_on(self):
        """Handle the next topic filters of a long packet."""
        self.resume()

    cdef int check_filter_ack(self) except -1:
        """Check that the acknowledgement of all topic filters is not larger than the client takes."""
        if self.session.is_too_large(len(self.return_codes) + FILTER_ACK_OVERHEAD):
            violation("packet_size_of_client")
        return 0

    cdef bint on_subscribe(self, const Packet* packet) except -1:
        """Grant every well-formed topic filter. One that names a token lets the session speak for that endpoint.

        Return False if there are more topic filters than may be handled at once.
        """
        cdef TopicFilter entry
        cdef const uint8_t* codes
        cdef uint16_t packet_id = <uint16_t>self.begin_filters(packet)
        while self.filter_at < packet.body.size:
            if not self.may_handle_filter():
                return False
            self.filter_at = next_filter(packet, self.level, self.filter_at, &entry)
            if self.refuses_control_characters:
                check_control_characters(entry.filter)
            if self.level >= LEVEL_5 and is_shared(entry.filter):
                if entry.no_local:
                    violation("shared_no_local")
                self.return_codes.append(SHARED_SUBSCRIPTIONS_NOT_SUPPORTED)
                continue
            self.return_codes.append(self.session.subscribe(entry.filter, entry.qos, self.subscription_identifier))
            self.server.uplink.identify(self.session, entry.filter)
        self.check_filter_ack()
        codes = self.return_codes
        append_filter_ack(self.output, self.level, SUBACK, packet_id, codes, len(self.return_codes))
        self.filter_at = 0
        self.return_codes = None
        self.transport.wake()
        return True

    cdef bint on_unsubscribe(self, const Packet* packet) except -1:
        """Forget topic filters. Return False if there are more than may be handled at once."""
        cdef TopicFilter entry
        cdef const uint8_t* codes
        cdef uint16_t packet_id = <uint16_t>self.begin_filters(packet)
        while self.filter_at < packet.body.size:
            if not self.may_handle_filter():
                return False
            self.filter_at = next_filter(packet, self.level, self.filter_at, &entry)
            if self.refuses_control_characters:
                check_control_characters(entry.filter)
            self.return_codes.append(self.session.unsubscribe(entry.filter))
        self.check_filter_ack()
        codes = self.return_codes
        if self.level >= LEVEL_5:
            append_filter_ack(self.output, self.level, UNSUBACK, packet_id, codes, len(self.return_codes))
        else:
            append_ack(self.output, UNSUBACK, packet_id)
        self.filter_at = 0
        self.return_codes = None
        self.transport.wake()
        return True

    # ------------------------------------------------------------ time and the end

    cdef int check(self, double now) except -1:
        """End a connection without CONNECT in time (3.1.4), or silent for one and a half keep-alives (3.1.2.10)."""
        cdef double silence
        # While the gateway does not read, silence is not the client's.
        if self.input_ended:
            return self.transport.close() if now - self.last_active > HALF_CLOSED_TIME else 0
        if self.active or self.blocked:
            self.active = False
            if self.state != AWAITING_CONNECT:
                self.last_active = now
        self.last_active += self.take_unread_time()
        silence = now - self.last_active
        if self.state == AWAITING_CONNECT and silence > self.server.connect_timeout:
            violation("connect_timeout")
        if self.state == CONNECTED and self.keep_alive and silence > self.keep_alive:
            violation("keep_alive_timeout")
        return 0

    cdef int end_of_input(self) except -1:
        """Close after the acknowledgements that are due (4.3.2, 4.3.3): the client has closed its sending side."""
        if not self.input_ended:
            self.input_ended = True
            self.last_active = self.server.loop.time()
        if self.state != ENDED and (self.blocked or (self.session is not None and self.session.acks_due)):
            return self.transport.wake()
        return self.transport.close()

    cdef int lost(self) except -1:
        """The connection is gone, with or without a DISCONNECT."""
        self.publish_will(False)
        self.leave_session(False)
        self.state = ENDED
        self.tail = None
        self.aliases = None
        self.server.input_memory.reserve(self, 0)
        return 0

    cdef int leave_session(self, bint discard) except -1:
        """Unbind the session, and keep it for its client unless it is a clean one or `discard` says otherwise."""
        cdef MqttSession session = self.session
        if session is None:
            return 0
        self.session = None
        if self.will_key is not None and self.server.by_will.get(self.will_key) is self:
            del self.server.by_will[self.will_key]
        session.unbind(self.server.loop.time())
        self.server.sessions.set_online(session, False)
        if discard or session.clean:
            return self.server.store.discard(session)
        return self.server.store.keep_offline(session)


cdef inline Message message_of(Slice topic, Slice payload, uint8_t qos) noexcept:
    """Return a message of this QoS for the uplink, without a token. Hot path."""
    cdef Message message
    message.topic = topic
    message.payload = payload
    message.service = <Service>qos
    message.token = 0
    message.sequence = BY_ATTACHMENT
    message.timeout = 0
    message.unanswered = False
    message.literal = False
    message.needs_request_id = False
    message.traceparent = NOTHING
    return message


cdef bint is_shared(Slice topic_filter) noexcept:
    """Return whether a topic filter is a shared subscription (MQTT 5, 4.8.2)."""
    return topic_filter.size >= 7 and topic_filter.data[:7] == b"$share/"


cdef int check_payload(const Properties* properties, Slice payload) except -1:
    """Check that a payload is UTF-8 if its Payload Format Indicator says so (MQTT 5, 3.3.2.3.2)."""
    if properties.number[<int>PAYLOAD_FORMAT_INDICATOR]:
        try:
            payload.data[:payload.size].decode()
        except UnicodeDecodeError:
            violation("payload_format")
    return 0
