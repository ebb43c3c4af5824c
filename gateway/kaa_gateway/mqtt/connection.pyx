"""One MQTT connection: packets in their legal order, keep-alive, the will, session take-over.

The gateway is no broker: a PUBLISH goes to an extension or nowhere, and every well-formed topic filter is granted,
because delivery does not depend on it (session.pyx). PUBACK and PUBREC are sent when NATS has confirmed the message.

Source: MQTT 3.1.1 (OASIS), whose section numbers the comments cite; 1/KP.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from kaa_gateway.counters cimport MQTT
from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.kp.uplink cimport BUSY, BY_ATTACHMENT, Message
from kaa_gateway.mqtt.received cimport ReceivedMessage, ReceivedMessages, digest_of
from kaa_gateway.mqtt.session cimport OFFLINE
from kaa_gateway.net.input_memory cimport INPUT_FREE
from kaa_gateway.net.transport cimport Transport
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.mqtt cimport (
    ACCEPTED, CONNECT, CONNECT_SIZE_MAX, DISCONNECT, IDENTIFIER_REJECTED, LEVEL_3_1, LEVEL_3_1_1, NOT_AUTHORIZED,
    PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SERVER_UNAVAILABLE, SUBSCRIBE,
    UNACCEPTABLE_PROTOCOL_VERSION, UNSUBACK, UNSUBSCRIBE, ConnectView, PublishView, TopicFilter, append_ack,
    append_connack, append_empty, append_suback, can_be_connect, check_flags, check_topic_name, first_filter,
    next_filter, next_packet, read_connect, read_empty, read_packet_id, read_publish,
)

from kaa_gateway.errors import IdentityError, ProtocolError
from kaa_gateway.identity.clients import Client, Presentation

cdef enum:
    FILTERS_PER_SLICE = 512  # topic filters that are handled before the event loop goes on
    TAIL_KEEP = 4096        # bytes of buffer that a connection keeps between incomplete packets

cdef double KEEP_ALIVE_GRACE = 1.5   # section 3.1.2.10
cdef double HALF_CLOSED_TIME = 10.0  # seconds that a client which has closed its sending side waits for its answers


cdef int violation(str reason) except -1:
    raise ProtocolError("mqtt_" + reason)


cdef class Will:
    """The message that the server publishes if the client goes without a DISCONNECT (3.1.2.5)."""


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
        """Count the memory of the tail and of unfinished QoS 2 messages. Return False if that is too much."""
        cdef Py_ssize_t size = 0 if self.tail is None else self.tail.capacity
        if self.session is not None and self.session.received is not None:
            size += self.session.received.memory()
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
            if consumed == 0 or not self.handle(&packet):
                break
            at += consumed
            taken += 1
        self.taken += taken
        return at

    cdef bint handle(self, const Packet* packet) except -1:
        """Handle a packet. Return False if it cannot be taken now and must be offered again. Hot path."""
        if packet.type == PUBLISH and self.state == CONNECTED:
            return self.on_publish(packet)
        if packet.type == CONNECT:
            if self.state != AWAITING_CONNECT:
                violation("second_connect")
            self.on_connect(packet)
        elif packet.type == PUBACK:
            self.session.on_puback(<uint16_t>read_packet_id(packet, self.level))
        elif packet.type == PUBREC:
            self.session.on_pubrec(<uint16_t>read_packet_id(packet, self.level))
        elif packet.type == PUBREL:
            self.session.on_pubrel(<uint16_t>read_packet_id(packet, self.level))
            if self.input_counted:
                self.input_fits()
        elif packet.type == PUBCOMP:
            self.session.on_pubcomp(<uint16_t>read_packet_id(packet, self.level))
        elif packet.type == SUBSCRIBE:
            return self.on_subscribe(packet)
        elif packet.type == UNSUBSCRIBE:
            return self.on_unsubscribe(packet)
        elif packet.type == PINGREQ:
            read_empty(packet, self.level)
            append_empty(self.output, PINGRESP)
            self.transport.wake()
        elif packet.type == DISCONNECT:
            read_empty(packet, self.level)
            self.will = None
            self.state = ENDED
            self.transport.close()
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
                self.state = ENDED
                self.transport.close()
        if self.blocked:
            return 0
        return self.end_of_input() if self.input_ended else self.transport.resume_reading()

    # ------------------------------------------------------------ CONNECT

    cdef int on_connect(self, const Packet* packet) except -1:
        """Check a CONNECT, and authenticate its client (3.1.4)."""
        cdef ConnectView connect
        read_connect(packet, &connect)
        if connect.level != LEVEL_3_1 and connect.level != LEVEL_3_1_1:
            return self.refuse(UNACCEPTABLE_PROTOCOL_VERSION, "mqtt_unacceptable_protocol_version")
        self.level = connect.level
        if connect.client_id.size == 0 and (not connect.clean_session or connect.level == LEVEL_3_1):
            return self.refuse(IDENTIFIER_REJECTED, "mqtt_identifier_rejected")
        self.keep_alive = self.server.allowed_keep_alive(connect.keep_alive) * KEEP_ALIVE_GRACE
        if connect.will_topic.data != NULL:
            self.will = Will()
            self.will.topic = connect.will_topic.data[:connect.will_topic.size]
            self.will.message = connect.will_message.data[:connect.will_message.size]
            self.will.qos = connect.will_qos
            self.will_key = self.server.uplink.router.named_by_filter(connect.will_topic)
        self.state = AUTHENTICATING
        client_id = connect.client_id.data[:connect.client_id.size].decode()
        clean = bool(connect.clean_session)
        try:
            known = self.server.authenticator.authenticate(Presentation(
                "mqtt",
                None if connect.user_name.data == NULL else connect.user_name.data[:connect.user_name.size].decode(),
                None if connect.password.data == NULL else connect.password.data[:connect.password.size],
                self.transport.certificate,
            ))
        except IdentityError as error:
            return self.refuse_client(error)
        if isinstance(known, Client):
            return self.admit(known, client_id, clean)
        known.add_done_callback(lambda done: self.authenticated(client_id, clean, done))
        return self.block()

    def authenticated(self, str client_id, bint clean, future):
        """Admit or refuse the client, then handle what it has sent meanwhile."""
        if self.state != AUTHENTICATING:
            future.exception()  # asyncio logs exceptions that are not retrieved
            return
        try:
            client = future.result()
        except IdentityError as error:
            self.refuse_client(error)
            return
        self.admit(client, client_id, clean)
        self.resume()

    cdef int refuse_client(self, error) except -1:
        """Refuse a client that is not authenticated, or cannot be now."""
        return self.refuse(NOT_AUTHORIZED if error.status < 500 else SERVER_UNAVAILABLE, error.reason)

    cdef int refuse(self, uint8_t return_code, str reason) except -1:
        """Send CONNACK with a return code other than 0, and close the connection (3.2.2.3)."""
        self.server.counters.count("closed", reason)
        append_connack(self.output, False, return_code)
        self.will = None
        self.state = ENDED
        return self.transport.close()

    cdef int admit(self, client, str client_id, bint clean) except -1:
        """Bind the connection to a session, and send CONNACK."""
        cdef MqttSession session = self.open_session(client, client_id, clean)
        cdef bint present = session.state == OFFLINE
        session.level = self.level
        session.bind(self, self.transport)
        self.server.sessions.set_online(session, True)
        self.session = session
        self.state = CONNECTED
        self.admitted = True
        append_connack(self.output, present, ACCEPTED)
        self.transport.wake()
        return session.begin_sending_again() if present else 0

    cdef int take_over(self, client, str client_id, bint clean) except -1:
        """Close the connection that the client has left behind, if there is one (3.1.4). Its will comes first.

        Clients without a client identifier are always different ones (3.1.3.1). Whole fleets share one client
        identifier, so an equal one is the same client only with the same authenticated principal; of anonymous clients
        if both ask for a session that outlives them, or if the wills of both name the same endpoint.
        """
        cdef MqttServer server = self.server
        cdef str principal = client.principal
        cdef MqttSession session
        cdef MqttConnection other
        if not client_id:
            self.will_key = None
            return 0
        session = server.store.find(principal, client_id)
        if session is not None and session.connection is not None and (principal or not clean):
            (<MqttConnection>session.connection).taken_over()
        if principal or self.will_key is None:
            self.will_key = None
            return 0
        self.will_key = (client_id, *self.will_key)
        other = server.by_will.get(self.will_key)
        if other is not None:
            other.taken_over()
        server.by_will[self.will_key] = self
        return 0

    cdef MqttSession open_session(self, client, str client_id, bint clean):
        """Return the stored session of a client that resumes it, or a new one (3.1.2.4)."""
        cdef MqttServer server = self.server
        cdef str principal = client.principal
        cdef MqttSession session = None
        self.take_over(client, client_id, clean)
        if client_id:
            session = server.store.find(principal, client_id)
        if session is not None and session.state == OFFLINE:
            if not clean:
                server.store.back_online(session)
                return session
            server.store.discard(session)
        session = MqttSession()
        session.counters = server.counters
        session.protocol = MQTT
        session.limits = server.limits
        session.scratch = server.scratch
        session.store = server.store
        session.principal = principal
        session.tenant = client.tenant
        session.client_id = client_id
        session.clean = clean
        server.sessions.open(session)
        if client_id and (principal or not clean):
            server.store.add(session)
        return session

    cdef int end(self, str reason) except -1:
        """Close the connection and discard its session. The will is not published."""
        self.server.counters.count("closed", reason)
        self.will = None
        self.leave_session(True)
        self.state = ENDED
        return self.transport.close()

    cdef int taken_over(self) except -1:
        """Close this connection, because its client has made another one (3.1.4)."""
        self.server.counters.count("closed", "mqtt_taken_over")
        self.publish_will()
        self.leave_session(False)
        self.state = ENDED
        return self.transport.close()

    # ------------------------------------------------------------ PUBLISH

    cdef bint on_publish(self, const Packet* packet) except -1:
        """Forward a PUBLISH. Return False if the uplink cannot take it now. Hot path."""
        cdef PublishView publish
        cdef Message message
        cdef MqttSession session = self.session
        cdef ReceivedMessage* received
        cdef uint64_t digest = 0
        read_publish(packet, self.level, &publish)
        check_topic_name(publish.topic)
        message = message_of(publish.topic, publish.payload, publish.qos)
        if publish.qos == 1:
            message.token = <uint32_t>PUBACK << 16 | publish.packet_id
        elif publish.qos == 2:
            if session.received is None:
                session.received = ReceivedMessages()
            digest = digest_of(publish.topic, publish.payload)
            received = session.received.find(publish.packet_id)
            if received != NULL and received.digest == digest:
                # Sent again. It has been forwarded; PUBREC was lost, or is still to be sent (4.3.3).
                if received.confirmed:
                    append_ack(self.output, PUBREC, publish.packet_id)
                    self.transport.wake()
                return True
            # A packet identifier in use with another message is that of a client which has lost its state.
            if session.received.reserve() and not self.input_fits():
                violation("input_memory_full")
            message.token = <uint32_t>(<uint8_t>(session.generation + 1)) << 24 | PUBREC << 16 | publish.packet_id
        if self.server.uplink.publish(session, &message) == BUSY:
            self.block()
            return False
        if publish.qos:
            session.acks_due += 1
        if publish.qos == 2:
            session.generation += 1
            received = session.received.put(publish.packet_id)
            received.digest = digest
            received.generation = session.generation
            received.confirmed = False
        return True

    cdef int publish_will(self) except -1:
        """Publish the will of a client that goes without a DISCONNECT (3.1.2.5), like any other message of it."""
        cdef Message message
        cdef Will will = self.will
        if will is None or self.session is None:
            return 0
        self.will = None
        message = message_of(
            Slice(<const uint8_t*>will.topic, len(will.topic)),
            Slice(<const uint8_t*>will.message, len(will.message)), will.qos,
        )
        # A full link would resume the session later, but its client is gone.
        if self.server.uplink.link.full or self.server.uplink.publish(self.session, &message) == BUSY:
            self.server.counters.count("dropped", "will")
        return 0

    # ------------------------------------------------------------ SUBSCRIBE, UNSUBSCRIBE

    cdef int begin_filters(self, const Packet* packet) except -1:
        """Check the head of a SUBSCRIBE or UNSUBSCRIBE, unless it is handled already. Return its packet identifier."""
        if self.filter_at == 0:
            check_flags(packet, self.level)
            self.filter_at = first_filter(packet)
            self.return_codes = bytearray()
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

    cdef bint on_subscribe(self, const Packet* packet) except -1:
        """Grant every well-formed topic filter. One that names a token lets the session speak for that endpoint.

        Return False if there are more topic filters than may be handled at once.
        """
        cdef TopicFilter entry
        cdef const uint8_t* granted
        cdef uint16_t packet_id = <uint16_t>self.begin_filters(packet)
        while self.filter_at < packet.body.size:
            if not self.may_handle_filter():
                return False
            self.filter_at = next_filter(packet, self.filter_at, &entry)
            self.return_codes.append(self.session.subscribe(entry.filter, entry.qos))
            self.server.uplink.identify(self.session, entry.filter)
        granted = self.return_codes
        append_suback(self.output, packet_id, granted, len(self.return_codes))
        self.filter_at = 0
        self.return_codes = None
        self.transport.wake()
        return True

    cdef bint on_unsubscribe(self, const Packet* packet) except -1:
        """Forget topic filters. Return False if there are more than may be handled at once."""
        cdef TopicFilter entry
        cdef uint16_t packet_id = <uint16_t>self.begin_filters(packet)
        while self.filter_at < packet.body.size:
            if not self.may_handle_filter():
                return False
            self.filter_at = next_filter(packet, self.filter_at, &entry)
            self.session.unsubscribe(entry.filter)
        append_ack(self.output, UNSUBACK, packet_id)
        self.filter_at = 0
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
        self.publish_will()
        self.leave_session(False)
        self.state = ENDED
        self.tail = None
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
    return message
