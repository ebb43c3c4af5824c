"""One MQTT connection: packets in their legal order, keep-alive, the will, and the end.

The gateway is no broker: a PUBLISH goes to an extension or nowhere, and every well-formed topic filter is granted,
because delivery does not depend on it (session.pyx). PUBACK and PUBREC are sent when NATS has confirmed the message.
CONNECT is handled in connect_handler.pyx.

One code serves MQTT 3.1, 3.1.1 and 5: what is of 5 alone hangs on properties, which the others do not have.

Source: MQTT 3.1.1 (OASIS), whose section numbers the comments cite; MQTT 5 (OASIS), where they say so; 1/KP.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.kp.uplink cimport BUSY, BY_ATTACHMENT, IGNORED, AliasedTopic, Message, Outcome
from kaa_gateway.mqtt.publish_properties cimport apply_properties, check_properties
from kaa_gateway.mqtt.received cimport GENERATION_SHIFT, PACKET_TYPE_SHIFT, ReceivedMessages, digest_of
from kaa_gateway.mqtt.response_topics cimport ResponseTopics
from kaa_gateway.mqtt.session cimport OF_REQUEST, REQUEST_MASK
from kaa_gateway.net.input_memory cimport INPUT_FREE
from kaa_gateway.net.transport cimport Transport
from kaa_gateway.wire.buffer cimport Slice, slice_of
from kaa_gateway.wire.mqtt cimport (
    AUTH, CONNECT, CONNECT_SIZE_MAX, DISCONNECT, LEVEL_3_1_1, LEVEL_5, NO_MATCHING_SUBSCRIBERS, PINGREQ, PINGRESP,
    PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBSCRIBE, SUCCESS, UNSUBSCRIBE, DisconnectView, append_connack,
    append_disconnect, append_empty, can_be_connect, missing_bytes, next_packet, read_disconnect, read_empty,
    read_packet_id, read_publish,
)
from kaa_gateway.wire.mqtt_fields cimport check_control_characters, check_topic_name, variable_size, violation
from kaa_gateway.wire.mqtt_properties cimport (
    CORRELATION_DATA, RESPONSE_TOPIC, SERVER_REFERENCE, SESSION_EXPIRY_INTERVAL, TOPIC_ALIAS, append_text, has,
)

from kaa_gateway.errors import ProtocolError
from kaa_gateway.mqtt import reason_codes

cdef enum:
    FILTERS_PER_SLICE = 512  # topic filters that are handled before the event loop goes on
    TAIL_KEEP = 4096        # bytes of buffer that a connection keeps between incomplete packets

cdef double KEEP_ALIVE_GRACE = 1.5   # section 3.1.2.10
cdef double NEVER = -1.0             # loop time of what has not been yet
cdef double HALF_CLOSED_TIME = 10.0  # seconds that a client which has closed its sending side waits for its answers
cdef uint64_t ALIAS_ALONE = 1ULL << <int>TOPIC_ALIAS  # Properties.present of a PUBLISH with no other property
cdef Slice NOTHING = Slice(NULL, 0)


cdef class MqttConnection(ProtocolCore):
    """The protocol core of one MQTT connection, which MqttServer makes."""

    def __cinit__(self):
        self.level = LEVEL_3_1_1
        self.client_id = ""
        self.last_active = NEVER

    # ------------------------------------------------------------ bytes

    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Handle the packets in `data`, borrowed for the call, and keep the rest. Hot path."""
        cdef Py_ssize_t taken, part
        self.active = True
        while size and self.tail is not None and self.tail.size and self.state != ENDED:
            # Copy what a packet lacks that came in parts, but not what follows it.
            part = size if self.blocked else min(size, missing_bytes(self.tail.data, self.tail.size))
            self.tail.append(data, part)
            data += part
            size -= part
            self.parse_tail()
        if size == 0 or self.state == ENDED:
            return 0
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
            self.server.connect_handler.on_connect(self, packet)
        elif packet.type == PUBACK:
            packet_id = <uint16_t>read_packet_id(packet, self.level, &reason_code)
            self.session.on_puback(packet_id, reason_code)
        elif packet.type == PUBREC:
            packet_id = <uint16_t>read_packet_id(packet, self.level, &reason_code)
            self.session.on_pubrec(packet_id, reason_code)
        elif packet.type == PUBREL:
            self.session.on_pubrel(<uint16_t>read_packet_id(packet, self.level, &reason_code))
            if self.input_counted:
                self.input_fits()
        elif packet.type == PUBCOMP:
            self.session.on_pubcomp(<uint16_t>read_packet_id(packet, self.level, &reason_code))
        elif packet.type == SUBSCRIBE or packet.type == UNSUBSCRIBE:
            return self.on_filters(packet)
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
        self.end_reason = "mqtt_disconnect"
        self.state = ENDED
        return self.transport.close()

    cdef int disconnect(self, uint8_t reason_code) except -1:
        """Tell a client of MQTT 5 why its connection ends (3.14)."""
        cdef bytes reference = self.server.server_reference
        cdef Buffer properties = Buffer()
        if self.level < LEVEL_5 or self.state == ENDED:
            return 0
        if reference is not None and reason_code in (reason_codes.USE_ANOTHER_SERVER, reason_codes.SERVER_MOVED):
            append_text(properties, SERVER_REFERENCE, slice_of(reference))
        if self.session is not None:
            append_disconnect(self.output, reason_code, Slice(properties.data, properties.size))
        else:
            append_connack(self.output, self.level, False, reason_code, Slice(properties.data, properties.size))
        return self.transport.wake()

    cdef int explain(self, str reason) except -1:
        """Tell the client which violation ends its connection."""
        self.end_reason = reason
        if self.state != AWAITING_CONNECT or self.level >= LEVEL_5:
            self.disconnect(reason_codes.code_of_violation(reason))
        self.state = ENDED
        return 0

    cdef int explain_stop(self) except -1:
        """Tell the client that the gateway stops, and where to go if that is configured."""
        self.end_reason = "draining"
        if self.state == CONNECTED:
            self.disconnect(
                reason_codes.SERVER_SHUTTING_DOWN if self.server.server_reference is None
                else reason_codes.USE_ANOTHER_SERVER
            )
        return 0

    cdef bint redirect(self, bint permanent) except -1:
        """Send the client to another server, after the acknowledgements that are due (4.13). Its session stays here."""
        if self.state != CONNECTED or self.input_ended:
            return False
        self.redirect_code = reason_codes.SERVER_MOVED if permanent else reason_codes.USE_ANOTHER_SERVER
        self.transport.pause_reading()
        self.end_of_input()
        return True

    cdef int end(self, str reason) except -1:
        """Close the connection and discard its session. The will is not published."""
        self.server.counters.count("closed", reason)
        self.end_reason = reason
        self.will = None
        self.disconnect(reason_codes.code_of_end(reason))
        self.leave_session(True)
        self.state = ENDED
        return self.transport.close()

    cdef int taken_over(self, bint resumes) except -1:
        """Close this connection, because its client has made another one (3.1.4), which resumes the session or not.

        It is closed at once: the other connection may be told that it has the session as soon as this returns.
        """
        # The session and the transport have the only references to this connection, and let go of it here.
        cdef MqttConnection connection = self
        cdef Transport transport = self.transport
        self.server.counters.count("closed", "mqtt_taken_over")
        self.end_reason = "mqtt_taken_over"
        self.disconnect(reason_codes.code_of_end("mqtt_taken_over"))
        self.publish_will(not resumes)
        connection.leave_session(False)
        connection.state = ENDED
        return transport.close_now()

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
                message.token = <uint32_t>PUBACK << PACKET_TYPE_SHIFT | publish.packet_id
            elif not self.track(&publish, &message):
                return True
        if publish.properties.present & ~ALIAS_ALONE:
            apply_properties(&publish.properties, &message, self.server.counters)
            if has(&publish.properties, RESPONSE_TOPIC):
                self.await_response(&publish, &message)
        if alias != NULL:
            outcome = self.server.uplink.publish_aliased(session, &message, <AliasedTopic>alias)
        else:
            outcome = self.server.uplink.publish(session, &message)
        if outcome == BUSY:
            if message.token >> GENERATION_SHIFT:
                session.received.close(publish.packet_id)
            if has(&publish.properties, RESPONSE_TOPIC):
                session.responses.take(message.sequence & REQUEST_MASK)
            self.block()
            return False
        if publish.qos:
            session.acks_due += 1
            if outcome == IGNORED and publish.qos == 1 and message.token >> GENERATION_SHIFT:
                session.received.refuse(publish.packet_id, NO_MATCHING_SUBSCRIBERS, None)
        return True

    cdef bint track(self, const PublishView* publish, Message* message) except -1:
        """Remember a message until it is acknowledged: one of QoS 2, or of MQTT 5, whose PUBACK may refuse it.

        Return False for a message of QoS 2 that is sent again and needs nothing more.
        """
        cdef MqttSession session = self.session
        cdef uint64_t digest = 0
        cdef bint confirmed = False
        if session.received is None:
            session.received = ReceivedMessages()
        if publish.qos == 2:
            digest = digest_of(publish.topic, publish.payload)
            if session.received.is_repeated(publish.packet_id, digest, &confirmed):
                # It has been forwarded; PUBREC was lost, or is still to be sent (4.3.3).
                if confirmed:
                    session.append_acknowledgement(PUBREC, publish.packet_id, SUCCESS)
                    self.transport.wake()
                return False
        if self.level >= LEVEL_5:
            if session.received.unacknowledged >= self.server.receive_maximum:
                violation("receive_maximum")
            message.sequence = session.sequence_of_acknowledged(publish.packet_id)
        if session.received.reserve() and not self.input_fits():
            violation("input_memory_full")
        message.token = session.received.open(publish.packet_id, publish.qos, digest)
        return True

    cdef PyObject* check_publish(self, PublishView* publish) except? NULL:
        """Check a PUBLISH of MQTT 5, or of a client whose control characters are refused.

        Return the topic of its alias, borrowed from the connection, or NULL if it has none. Hot path.
        """
        cdef PyObject* alias = NULL
        if publish.retain and self.level >= LEVEL_5:
            violation("retain")
        if has(&publish.properties, TOPIC_ALIAS):
            alias = self.resolve_alias(publish)
        else:
            self.check_topic(publish.topic)
        if publish.properties.present & ~ALIAS_ALONE:
            check_properties(&publish.properties, publish.payload)
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
            return self.aliases.resolve(alias, publish)
        self.check_topic(publish.topic)
        found = self.aliases.set(alias, publish.topic)
        if not self.input_fits():
            violation("input_memory_full")
        return found

    cdef int await_response(self, const PublishView* publish, Message* message) except -1:
        """Remember where the answer to a message goes (MQTT 5, 4.10)."""
        cdef MqttSession session = self.session
        cdef Slice correlation_data = NOTHING
        if session.responses is None:
            session.responses = ResponseTopics()
        if has(&publish.properties, CORRELATION_DATA):
            correlation_data = publish.properties.text[<int>CORRELATION_DATA]
        message.sequence = OF_REQUEST | session.responses.add(
            publish.properties.text[<int>RESPONSE_TOPIC], correlation_data, publish.packet_id
        )
        message.needs_request_id = True
        return session.responses.limit(session.limits.queued_messages, session.limits.queued_bytes, session.counters)

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

    cdef bint on_filters(self, const Packet* packet) except -1:
        """Handle a SUBSCRIBE or UNSUBSCRIBE. Return False if it has more topic filters than may be handled at once."""
        if self.filters is None:
            self.filters = FilterRequest()
            self.filters.begin(packet, self.level)
        while self.filters.at < packet.body.size:
            if self.filters_left == 0:
                self.block()
                self.server.loop.call_soon(self.go_on)
                return False
            self.filters_left -= 1
            self.filters.handle_next(packet, self.session, self.server.uplink, self.refuses_control_characters)
        self.filters.append_acknowledgement(packet, self.session, self.output)
        self.filters = None
        self.transport.wake()
        return True

    def go_on(self):
        """Handle the next topic filters of a long packet."""
        self.resume()

    # ------------------------------------------------------------ time and the end

    cdef int check(self, double now) except -1:
        """End a connection without CONNECT in time (3.1.4), or silent for one and a half keep-alives (3.1.2.10)."""
        cdef double silence
        # While the gateway does not read, silence is not the client's.
        if self.input_ended:
            return self.transport.close() if now - self.last_active > HALF_CLOSED_TIME else 0
        if self.last_active == NEVER:
            self.last_active = now  # the first check is soon enough to count from
        if self.active or self.blocked:
            self.active = False
            if self.state != AWAITING_CONNECT:
                self.last_active = now
        self.last_active += self.take_unread_time()
        silence = now - self.last_active
        if self.state == AWAITING_CONNECT and silence > self.server.connect_timeout:
            violation("connect_timeout")
        if self.state == CONNECTED and self.keep_alive and silence > self.keep_alive * KEEP_ALIVE_GRACE:
            violation("keep_alive_timeout")
        return 0

    cdef int end_of_input(self) except -1:
        """Close after the acknowledgements that are due (4.3.2, 4.3.3): the client has closed its sending side."""
        if not self.input_ended:
            self.input_ended = True
            self.last_active = self.server.loop.time()
        if self.state != ENDED and (self.blocked or (self.session is not None and self.session.acks_due)):
            return self.transport.wake()
        if self.redirect_code:
            self.disconnect(self.redirect_code)
            self.state = ENDED
        return self.transport.close()

    cdef int lost(self) except -1:
        """The connection is gone, with or without a DISCONNECT."""
        self.server.counters.remember_end(
            self.client_id,
            b"" if self.end_reason == "mqtt_disconnect" else self.transport.peer_address(),  # spares a system call
            "mqtt_connection_lost" if self.end_reason is None else self.end_reason,
        )
        self.publish_will(False)
        self.leave_session(False)
        if self.entry is not None:
            self.entry.waiting = None
            self.entry = None
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
        self.server.connect_handler.forget(self)
        session.unbind()
        self.server.sessions.set_online(session, False)
        if discard or session.clean:
            return self.server.store.discard(session)
        session.offline_since = self.server.loop.time()
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
