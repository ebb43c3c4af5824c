"""An MQTT-SN client: its states, and the translation between its messages and those of an MQTT connection.

Each client has an MQTT connection of its own within the gateway, as a transparent gateway has one to its broker. The
client is the transport of that connection. So sessions, wills, identity, takeover and the way to and from NATS are
those of MQTT.

What does not live here: what is sent and until when (outbox.pyx), topic IDs (topics.pyx), what a SUBSCRIBE asks for
(filter_request.pyx), changes of a will (wills.pyx), and who is a client (server.pyx).

Source: MQTT-SN 1.2, section 6.
"""

from kaa_gateway.errors import ProtocolError

from kaa_gateway.counters cimport MQTT_SN
from kaa_gateway.mqtt.received cimport digest_of
from kaa_gateway.mqtt_sn.filter_request cimport FilterRequest, read_filter_request
from kaa_gateway.mqtt_sn.outbox cimport OutgoingMessage
from kaa_gateway.mqtt_sn.packets cimport ConnectWill, append_connect, append_filter_request
from kaa_gateway.mqtt_sn.publications cimport WAITING, Publication
from kaa_gateway.mqtt_sn.wills cimport update_will
from kaa_gateway.wire cimport mqtt, mqtt_sn as sn
from kaa_gateway.wire.buffer cimport Buffer, slice_of, to_bytes
from kaa_gateway.wire.mqtt_fields cimport check_topic_name

cdef enum:
    OUTPUT_KEEP = 4096        # bytes
    MQTT_RETAIN = 0x01        # flags of a PUBLISH of MQTT
    MQTT_QOS_SHIFT = 1
    SUBSCRIPTIONS_OPEN = 16   # SUBSCRIBE messages of a client that are not answered

cdef Slice NOTHING = Slice(NULL, 0)


cdef class MqttSnPeer(Transport):
    """One client. `client` is the admitted client of its DTLS session, or None."""

    def __init__(self, MqttSnServer server not None, Outbox outbox not None, client):
        self.server = server
        self.counters = server.counters
        self.outbox = outbox
        self.client = client
        self.state = AWAIT_WILL_TOPIC

    # ------------------------------------------------------------ Transport

    cdef int wake(self) except -1:
        if not self.woken and self.state != GONE:
            self.woken = True
            self.server.flush_later(self)
        return 0

    cdef int close(self) except -1:
        self.closing = True
        return self.wake()

    cdef int close_now(self) except -1:
        return self.leave(True)

    cdef bytes peer_address(self):
        return self.outbox.socket.client_address(&self.outbox.address)

    cdef object tls_version(self):
        return None if self.client is None else "DTLSv1.2"

    # ------------------------------------------------------------ CONNECT

    cdef int connect(self, const SnMessage* message) except -1:
        """Begin with a CONNECT (6.2)."""
        self.client_id = message.text.data[:message.text.size]
        self.topics = ClientTopics(
            self.server.settings.predefined, self.client_id, self.server.settings.topics, self.server.topic_memory
        )
        self.outbox.topics = self.topics
        self.connect_flags = message.flags
        self.clean = message.flags & sn.CLEAN_SESSION != 0
        self.duration = message.duration
        self.fresh = True
        self.set_period(self.server.settings.connect_timeout)
        if message.flags & sn.WILL:
            self.state = AWAIT_WILL_TOPIC
            return self.outbox.send_empty(sn.WILLTOPICREQ)
        return self.open_connection(NOTHING)

    cdef int return_to_active(self, const SnMessage* message) except -1:
        """Go on with a connection whose client sends CONNECT again, from its sleep or because CONNACK was lost."""
        if self.state in (AWAIT_WILL_TOPIC, AWAIT_WILL_MESSAGE):
            self.state = AWAIT_WILL_TOPIC
            return self.outbox.send_empty(sn.WILLTOPICREQ)
        if self.state == CONNECTING:
            return 0
        self.server.forget_sleeper(self)
        self.duration = message.duration
        self.become_active()
        self.topics.forget_told()
        self.outbox.held = False
        self.outbox.send_byte(sn.CONNACK, sn.RC_ACCEPTED)
        return self.outbox.send_waiting(self.server.now)

    cdef int open_connection(self, Slice will_message) except -1:
        """Give the connection within the gateway its CONNECT."""
        cdef ConnectWill will
        will.topic = slice_of(self.will_topic)
        will.message = will_message
        will.flags = self.will_flags
        self.server.packet.size = 0
        append_connect(self.server.packet, slice_of(self.client_id), self.clean, self.duration, &will)
        self.will_topic = None
        self.state = CONNECTING
        self.connection = <MqttConnection>self.server.mqtt.connect(self)
        return self.feed()

    cdef int on_will(self, const SnMessage* message) except -1:
        """Take the will of a CONNECT (6.3)."""
        if message.type == sn.WILLTOPIC and self.state in (AWAIT_WILL_TOPIC, AWAIT_WILL_MESSAGE):
            if message.empty:
                return self.open_connection(NOTHING)
            self.will_flags = message.flags
            self.will_topic = to_bytes(message.text)
            self.state = AWAIT_WILL_MESSAGE
            return self.outbox.send_empty(sn.WILLMSGREQ)
        if message.type == sn.WILLMSG and self.state == AWAIT_WILL_MESSAGE:
            return self.open_connection(message.text)
        return 0  # a repetition that came late

    cdef int on_will_update(self, const SnMessage* message) except -1:
        """Change the will (6.4)."""
        return self.outbox.send_byte(
            sn.WILLTOPICRESP if message.type == sn.WILLTOPICUPD else sn.WILLMSGRESP,
            update_will(self.connection, message, self.counters),
        )

    # ------------------------------------------------------------ from the client

    cdef int receive(self, const SnMessage* message) except -1:
        """Handle a message, but CONNECT. Hot path."""
        cdef uint8_t type = message.type
        self.last_received = self.server.now
        if type == sn.WILLTOPIC or type == sn.WILLMSG:
            return self.on_will(message)
        if self.state < ACTIVE:
            return self.counters.count("dropped", "mqtt_sn_not_connected")
        self.fresh = False
        if type == sn.DISCONNECT:
            return self.on_disconnect(message)
        if type == sn.PINGREQ:
            return self.on_pingreq(message)
        if self.state == ASLEEP:
            # A client that sleeps sends PINGREQ or CONNECT before anything else (6.14).
            return self.counters.count("dropped", "mqtt_sn_asleep")
        if type == sn.PUBLISH:
            return self.on_publish(message)
        if type == sn.REGISTER:
            return self.on_register(message)
        if type == sn.SUBSCRIBE or type == sn.UNSUBSCRIBE:
            return self.on_subscribe(message)
        if type == sn.WILLTOPICUPD or type == sn.WILLMSGUPD:
            return self.on_will_update(message)
        return self.on_acknowledgement(message)

    cdef int on_register(self, const SnMessage* message) except -1:
        """Give a topic a topic ID (6.5)."""
        cdef uint16_t topic_id = 0
        cdef uint8_t code = sn.RC_ACCEPTED
        try:
            check_topic_name(message.text)
        except ProtocolError as error:
            self.counters.count("refused", error.reason)
            code = sn.RC_NOT_SUPPORTED
        else:
            topic_id = self.topics.register(to_bytes(message.text))
            if topic_id:
                self.topics.tell(topic_id)
            else:
                self.counters.count("refused", self.topics.refusal())
                code = sn.RC_CONGESTION
        return self.outbox.send_acknowledgement(sn.REGACK, topic_id, message.message_id, code)

    cdef int on_publish(self, const SnMessage* message) except -1:
        """Forward a PUBLISH (6.6). Hot path."""
        cdef uint8_t qos = sn.qos_of(message.flags), flags
        cdef bytes topic = self.topics.topic_of(sn.topic_type(message.flags), message.topic_id)
        if qos == sn.QOS_MINUS_1:
            qos = 0
        if topic is None:
            self.counters.count("refused", "mqtt_sn_unknown_topic_id")
            return self.outbox.send_acknowledgement(
                sn.PUBACK, message.topic_id, message.message_id, sn.RC_INVALID_TOPIC_ID
            )
        if qos and message.message_id == 0:
            return self.counters.count("dropped", "mqtt_sn_field")
        if self.connection.blocked:
            self.counters.count("refused" if qos else "dropped", "mqtt_sn_congestion")
            if qos == 0:
                return 0
            return self.outbox.send_acknowledgement(sn.PUBACK, message.topic_id, message.message_id, sn.RC_CONGESTION)
        if qos == 1 and self.is_repeated(message, topic):
            return 0
        flags = qos << MQTT_QOS_SHIFT
        if message.flags & sn.RETAIN:
            flags |= MQTT_RETAIN
        self.server.packet.size = 0
        mqtt.append_publish(
            self.server.packet, mqtt.LEVEL_3_1_1, flags, slice_of(topic), message.message_id, NOTHING, message.text
        )
        return self.feed()

    cdef bint is_repeated(self, const SnMessage* message, bytes topic) except -1:
        """Remember a QoS 1 message. Return whether it needs nothing more, as a repetition or one too many. Hot path."""
        cdef uint64_t digest = digest_of(slice_of(topic), message.text)
        cdef Publication* known
        if self.publications is None:
            self.publications = Publications()
        known = self.publications.find(message.message_id)
        if known != NULL and known.digest == digest:
            if known.state == WAITING:
                return True
            if message.flags & sn.DUP:
                self.outbox.send_acknowledgement(sn.PUBACK, message.topic_id, message.message_id, sn.RC_ACCEPTED)
                return True
        if self.publications.add(message.message_id, message.topic_id, digest):
            return False
        self.counters.count("refused", "mqtt_sn_congestion")
        self.outbox.send_acknowledgement(sn.PUBACK, message.topic_id, message.message_id, sn.RC_CONGESTION)
        return True

    cdef int on_subscribe(self, const SnMessage* message) except -1:
        """Subscribe to a topic filter, or unsubscribe (6.9)."""
        cdef FilterRequest request
        if message.message_id == 0:
            return self.counters.count("dropped", "mqtt_sn_field")
        if self.connection.blocked or (self.subscribing is not None and len(self.subscribing) >= SUBSCRIPTIONS_OPEN):
            self.counters.count("refused", "mqtt_sn_congestion")
            return self.refuse_filter(message, sn.RC_CONGESTION)
        request = read_filter_request(message, self.topics, self.counters)
        if request.return_code != sn.RC_ACCEPTED:
            return self.refuse_filter(message, request.return_code)
        if message.type == sn.SUBSCRIBE:
            if self.subscribing is None:
                self.subscribing = {}
            self.subscribing[message.message_id] = request.topic_id
        self.server.packet.size = 0
        append_filter_request(
            self.server.packet, message.type == sn.SUBSCRIBE, message.message_id, slice_of(request.topic_filter),
            sn.qos_of(message.flags),
        )
        return self.feed()

    cdef int refuse_filter(self, const SnMessage* message, uint8_t return_code) except -1:
        """Refuse a SUBSCRIBE. An UNSUBSCRIBE cannot be refused, and is not answered."""
        if message.type == sn.UNSUBSCRIBE:
            return 0
        sn.append_suback(self.server.scratch, 0, 0, message.message_id, return_code)
        self.outbox.transmit()
        return 0

    cdef int on_acknowledgement(self, const SnMessage* message) except -1:
        """Handle what completes a message, of either side."""
        cdef double now = self.server.now
        cdef uint16_t message_id = message.message_id
        if self.connection.session is None:
            return 0
        if message.type == sn.REGACK:
            self.outbox.on_regack(message.topic_id, message_id, message.return_code, now)
            if self.outbox.proved:
                self.server.prove(self)
        elif message.type == sn.PUBACK:
            if self.outbox.on_puback(message.topic_id, message_id, message.return_code, now):
                self.connection.session.on_puback(message_id, 0)
        elif message.type == sn.PUBREC:
            if self.outbox.on_pubrec(message_id):
                self.connection.session.on_pubrec(message_id, 0)
        elif message.type == sn.PUBCOMP:
            self.outbox.on_pubcomp(message_id, now)
            self.connection.session.on_pubcomp(message_id)
        elif message.type == sn.PUBREL:
            if self.connection.blocked or message_id == 0:
                return 0
            self.server.packet.size = 0
            mqtt.append_ack(self.server.packet, mqtt.PUBREL, message_id)
            return self.feed()
        return self.flush()

    cdef int on_pingreq(self, const SnMessage* message) except -1:
        """Answer a PINGREQ; a client that sleeps gets its messages first (6.11, 6.14)."""
        if self.state == ACTIVE:
            return self.outbox.send_empty(sn.PINGRESP)
        if message.text.size and message.text.data[:message.text.size] != self.client_id:
            return self.outbox.send_empty(sn.DISCONNECT)
        self.state = AWAKE
        self.outbox.held = False
        self.outbox.send_waiting(self.server.now)
        return self.flush()

    cdef int on_disconnect(self, const SnMessage* message) except -1:
        """Let the client go, or sleep (6.12, 6.14)."""
        self.server.forget_sleeper(self)
        self.outbox.send_empty(sn.DISCONNECT)
        if not message.empty and message.duration:
            self.state = ASLEEP
            self.outbox.hold()
            self.set_period(sn.tolerated_silence(message.duration))
            return self.server.add_sleeper(self)
        if self.leaving:
            return 0
        self.leaving = True
        self.server.packet.size = 0
        mqtt.append_empty(self.server.packet, mqtt.DISCONNECT)
        return self.feed()

    # ------------------------------------------------------------ the MQTT connection

    cdef int feed(self) except -1:
        """Hand the connection the packet that the server holds, then send what it answers. Hot path."""
        cdef Buffer packet = self.server.packet
        try:
            self.connection.receive(packet.data, packet.size)
        except ProtocolError as error:
            self.counters.count("closed", error.reason)
            if self.state == CONNECTING:
                self.outbox.send_byte(sn.CONNACK, sn.RC_NOT_SUPPORTED)
            self.connection.explain(error.reason)
            self.closing = True
        return self.flush()

    cdef int flush(self) except -1:
        """Send what the connection has for the client, and end if the connection has. Hot path."""
        cdef OutgoingMessage message
        cdef list dropped
        self.woken = False
        while self.connection is not None:
            if self.connection.output.size:
                self.translate()
            self.outbox.send_waiting(self.server.now)
            if self.outbox.dropped is None:
                break
            dropped, self.outbox.dropped = self.outbox.dropped, None
            if self.connection.session is None:
                break
            for message in dropped:
                self.connection.session.on_puback(message.message_id, mqtt.UNSPECIFIED_ERROR)
        if self.state == AWAKE:
            self.finish_awake()
        if self.closing:
            return self.leave(True)
        if self.outbox.awaited:
            self.schedule(self.outbox.retry_at)
        return 0

    cdef int translate(self) except -1:
        """Send the packets in the connection's output. Hot path."""
        cdef Buffer output = self.connection.output
        cdef Packet packet
        cdef Py_ssize_t at = 0
        while at < output.size:
            at += mqtt.next_packet(output.data + at, output.size - at, mqtt.REMAINING_LENGTH_MAX, &packet)
            self.on_packet(&packet)
        output.clear(OUTPUT_KEEP)
        return 0

    cdef int on_packet(self, const Packet* packet) except -1:
        """Send what a packet of the connection says. Hot path."""
        cdef mqtt.PublishView publish
        cdef uint8_t type = packet.type, flags
        cdef uint16_t message_id
        cdef int32_t topic_id
        if type == mqtt.PUBLISH:
            mqtt.read_publish(packet, mqtt.LEVEL_3_1_1, &publish)
            flags = publish.qos << sn.QOS_SHIFT
            if publish.dup:
                flags |= sn.DUP
            return self.outbox.publish(
                flags, publish.packet_id, publish.topic, publish.payload, self.server.now
            )
        if type == mqtt.CONNACK:
            return self.on_connack(packet.body.data[1])
        if type not in (mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBREL, mqtt.PUBCOMP, mqtt.SUBACK, mqtt.UNSUBACK):
            return 0
        message_id = <uint16_t>(packet.body.data[0] << 8 | packet.body.data[1])
        if type == mqtt.PUBACK:
            topic_id = -1 if self.publications is None else self.publications.acknowledge(message_id)
            if topic_id < 0:
                return 0  # of a message before the client came back from another address; it will ask again
            return self.outbox.send_acknowledgement(sn.PUBACK, <uint16_t>topic_id, message_id, sn.RC_ACCEPTED)
        if type == mqtt.SUBACK:
            return self.on_suback(packet)
        if type == mqtt.PUBREL:
            return self.outbox.release(message_id, self.server.now)
        if type == mqtt.PUBREC:
            return self.outbox.send_id(sn.PUBREC, message_id)
        return self.outbox.send_id(sn.PUBCOMP if type == mqtt.PUBCOMP else sn.UNSUBACK, message_id)

    cdef int on_connack(self, uint8_t code) except -1:
        """Tell the client whether it is connected."""
        if code == mqtt.ACCEPTED:
            self.counters.connections_opened[<int>MQTT_SN] += 1
            if not self.connection.session.clean:
                self.topics.resume(self.connection.session)
            self.become_active()
            return self.outbox.send_byte(sn.CONNACK, sn.RC_ACCEPTED)
        return self.outbox.send_byte(
            sn.CONNACK, sn.RC_CONGESTION if code == mqtt.SERVER_UNAVAILABLE else sn.RC_NOT_SUPPORTED
        )

    cdef int on_suback(self, const Packet* packet) except -1:
        """Tell the client what it was granted."""
        cdef uint16_t message_id = <uint16_t>(packet.body.data[0] << 8 | packet.body.data[1])
        cdef uint8_t granted = packet.body.data[2]
        cdef uint16_t topic_id = self.subscribing.pop(message_id, 0)
        if granted >= mqtt.UNSPECIFIED_ERROR:
            sn.append_suback(self.server.scratch, 0, 0, message_id, sn.RC_CONGESTION)
        else:
            sn.append_suback(
                self.server.scratch, <uint8_t>(granted << sn.QOS_SHIFT), topic_id, message_id, sn.RC_ACCEPTED
            )
        self.outbox.transmit()
        return 0

    cdef int finish_awake(self) except -1:
        """Let the client sleep again if it has all its messages."""
        if not self.outbox.is_idle():
            return 0
        self.state = ASLEEP
        self.outbox.held = True
        return self.outbox.send_empty(sn.PINGRESP)

    # ------------------------------------------------------------ time and the end

    cdef int set_period(self, double seconds) except -1:
        """Set after how much silence the client counts as lost."""
        self.period = seconds
        self.last_received = self.server.now
        return self.schedule(self.last_received + seconds) if seconds else 0

    cdef int become_active(self) except -1:
        """Count the client as lost when it exceeds its keep-alive; one that is too long is cut."""
        cdef double longest = self.server.mqtt.connect_handler.keep_alive_max
        cdef double granted = self.duration
        if longest > 0 and (granted == 0 or granted > longest):
            granted = longest
        self.state = ACTIVE
        return self.set_period(sn.tolerated_silence(granted))

    cdef int schedule(self, double due) except -1:
        """Have `expire` called at that loop time, or earlier."""
        if self.due == 0 or due < self.due:
            self.due = due
            self.server.add_timer(self)
        return 0

    cdef int expire(self, double now) except -1:
        """Send again what is due, and end a client that is silent."""
        cdef bint lost = self.period != 0 and now >= self.last_received + self.period
        if lost and self.state < ACTIVE:
            return self.end("mqtt_sn_connect_timeout", False)
        if lost and self.state == ASLEEP:
            return self.end("mqtt_sn_asleep_for_too_long", False)
        if lost:
            return self.end("mqtt_keep_alive_timeout", True)
        if not self.outbox.retransmit(now):
            return self.end("mqtt_sn_unreachable", True)
        if self.period:
            self.schedule(self.last_received + self.period)
        if self.outbox.awaited:
            self.schedule(self.outbox.retry_at)
        return 0

    cdef int end(self, str reason, bint tell) except -1:
        """End the connection as a lost one, so that its will is published. `tell` the client."""
        self.counters.count("closed", reason)
        if self.connection is not None:
            self.connection.end_reason = reason
        return self.leave(tell)

    cdef int leave(self, bint tell) except -1:
        """Forget the client. Unless it has left by itself or sleeps, it may be told."""
        cdef MqttConnection connection = self.connection
        cdef PeerState before = self.state
        if before == GONE:
            return 0
        self.state = GONE
        self.connection = None
        self.topics.release()
        self.server.remove(self)
        if before in (ACTIVE, AWAKE, ASLEEP):
            self.counters.connections_closed[<int>MQTT_SN] += 1
        if tell and not self.leaving and before in (ACTIVE, AWAKE):
            self.outbox.send_empty(sn.DISCONNECT)
        return 0 if connection is None else connection.lost()
