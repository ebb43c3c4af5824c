"""What the server remembers of one client: packet identifiers in flight both ways, subscriptions, queued messages.

A session outlives its connection if the client asked for that. Delivery does not depend on subscriptions: an answer
or push goes to the session that speaks for its endpoint, whether or not it subscribed; a subscription only says at
which QoS its client wants a push. A session is of no protocol level: its client may come back with another one.

Source: MQTT 3.1.1 sections 3.1.2.4 (Clean Session), 4.3 (QoS), 4.4 (delivery retry); MQTT 5 sections 3.3.2.3 (PUBLISH
properties), 4.1 (session state), 4.9 (flow control), 4.10 (request / response); 1/KP, responses.
"""

from libc.string cimport memcmp

from kaa_gateway.clock cimport now_ms
from kaa_gateway.kp.addressee cimport Addressee, find_addressee
from kaa_gateway.kp.correlation cimport REQUEST
from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.kp.receipts cimport drop_receipt, kept_receipt
from kaa_gateway.kp.resource_path cimport CleanText, append_topic, is_clean_topic_again
from kaa_gateway.kp.session cimport Attachment, Session
from kaa_gateway.kp.uplink cimport BY_ATTACHMENT
from kaa_gateway.mqtt.answers cimport REASON_PHRASE_SIZE_MAX, deadline_of, error_payload, phrase_of
from kaa_gateway.mqtt.message_queue cimport QueuedMessage, size_of
from kaa_gateway.mqtt.outgoing cimport append_message
from kaa_gateway.mqtt.received cimport GENERATION_SHIFT, PACKET_TYPE_SHIFT
from kaa_gateway.mqtt.recent_pushes cimport RecentPushes, digest_of_push
from kaa_gateway.mqtt.response_topics cimport AwaitedResponse
from kaa_gateway.mqtt.subscriptions cimport NO_MATCH
from kaa_gateway.net.proxy cimport describe_peer
from kaa_gateway.wire.buffer cimport slice_of, to_bytes
from kaa_gateway.wire.mqtt cimport (
    LEVEL_3_1, LEVEL_3_1_1, LEVEL_5, NO_SUBSCRIPTION_EXISTED, PUBCOMP, PUBREC, PUBREL, QUOTA_EXCEEDED, SUCCESS,
    UNSPECIFIED_ERROR, append_ack, append_ack_with_reason, append_publish,
)
from kaa_gateway.wire.mqtt_properties cimport CORRELATION_DATA, REASON_STRING, append_text, append_user_property

from kaa_gateway.bus import push_receipts
from kaa_gateway.mqtt import reason_codes

cdef enum:
    TOPIC_SIZE_MAX = 65535    # bytes
    ACK_OVERHEAD = 12         # bytes of a PUBACK beside its Reason String, at most
    # Bytes of a session, a message and an endpoint beside what is counted of them.
    SESSION_OVERHEAD = 1024
    MESSAGE_OVERHEAD = 192
    ENDPOINT_OVERHEAD = 512
    PUSH_TOPIC_MAX = 512      # bytes of a push's address and topic that are kept for the next push
    SEND_AGAIN_PART = 4       # the part of the output buffer is one fourth

cdef Slice NOTHING = Slice(NULL, 0)
cdef str REPEATED = push_receipts.REPEATED
cdef dict VERSIONS = {LEVEL_3_1: "3.1", LEVEL_3_1_1: "3.1.1", LEVEL_5: "5.0"}
cdef bytes STATUS_SUFFIX = b"/status"
cdef bytes ERROR_SUFFIX = b"/error"

# The names checked last: extensions mostly send the same ones again, which then need no check.
cdef CleanText last_version
cdef CleanText last_extension
cdef CleanText last_path


cdef class MqttSession(Session):
    """The session of one client, online or offline."""

    # ------------------------------------------------------------ connection

    cdef int bind(self, ProtocolCore connection, Transport transport, uint8_t level, ClientOptions options) except -1:
        """The client is online, over this connection, with these options."""
        self.state = ONLINE
        self.connection = connection
        self.transport = transport
        self.level = level
        self.expiry = options.session_expiry
        self.clean = self.expiry == 0 and not (level < LEVEL_5 and options.outlives)
        self.keep_alive = <float>options.keep_alive_granted
        self.window = min(<uint32_t>self.limits.in_flight_window, options.receive_maximum)
        self.packet_size_max = options.packet_size_max
        self.problem_information = options.problem_information
        if self.received is not None:
            self.received.unacknowledged = 0
        self.aliases = SentAliases(options.topic_alias_maximum) if options.topic_alias_maximum else None
        return 0

    cdef int unbind(self) except -1:
        """The client's connection has ended."""
        self.state = OFFLINE
        self.connection = None
        self.transport = None
        self.aliases = None
        return self.in_flight.end_connection() if self.in_flight is not None else 0

    cdef int resume(self) except -1:
        if self.connection is not None:
            return self.connection.resume()
        self.resume_wanted = self.waiting_count > 0  # of what still waits, the next one calls again
        return self.at_rest()

    cdef int at_rest(self) except -1:
        """Tell the store if no message of an offline client waits for an identity or an acknowledgement."""
        return 0 if self.acks_due or self.waiting_count else self.store.on_acknowledged(self)

    cdef int end(self, str reason) except -1:
        if self.connection is not None:
            return self.connection.end(reason)
        self.counters.count("dropped", reason)
        return self.store.discard(self)

    cdef int on_attachments_changed(self) except -1:
        return 0 if self.stored is None else self.stored.change()

    def describe(self):
        """Return what an operator may see of it."""
        return {
            **Session.describe(self),
            **(describe_peer(b"", None) if self.transport is None else self.transport.describe()),
            "clientId": self.client_id,
            "version": VERSIONS.get(self.level),
            "clean": bool(self.clean),
            "sessionExpiry": self.expiry,
            "keepAlive": None if self.connection is None else self.keep_alive,
            "subscriptions": 0 if self.subscriptions is None else len(self.subscriptions.granted),
            "topics": [] if self.subscriptions is None else self.subscriptions.shown(),
            "inFlight": 0 if self.in_flight is None else len(self.in_flight.packets),
            "queued": 0 if self.queued is None else len(self.queued.messages),
        }

    def is_of(self, str client_id not None):
        """Return whether its client has this client identifier."""
        return self.client_id == client_id

    cdef Py_ssize_t memory(self) except -1:
        """Return the bytes that the session takes, roughly."""
        cdef Py_ssize_t size = SESSION_OVERHEAD, messages = 0
        if self.subscriptions is not None:
            size += self.subscriptions.bytes
        if self.received is not None:
            size += self.received.memory()
        if self.responses is not None:
            size += self.responses.bytes
        if self.queued is not None:
            size += self.queued.bytes
            messages += len(self.queued.messages)
        if self.in_flight is not None:
            size += self.in_flight.memory()
            messages += len(self.in_flight.packets)
        if self.registered_topics is not None:
            size += size_of_topics(self.registered_topics)
        size += ENDPOINT_OVERHEAD * self.attachment_count()
        return size + MESSAGE_OVERHEAD * messages

    cdef int begin_sending_again(self) except -1:
        """The client has resumed the session: send what it has not acknowledged (4.4), then what was queued."""
        if self.in_flight is not None:
            self.in_flight.begin_sending_again(self.level, self.packet_size_max, self.counters)
        return self.send_again()

    cdef int send_again(self) except -1:
        """Send what is unsent over this connection, in its order (4.6), and after all of it what is queued.

        No more than a part of the output buffer is unacknowledged meanwhile: a client must not be closed as a slow
        reader for what it was sent before.
        """
        cdef bytes packet
        while self.in_flight is not None and self.in_flight.unsent is not None:
            packet = self.in_flight.take_unsent(self.window, self.limits.queued_bytes // SEND_AGAIN_PART)
            if packet is not None:
                self.connection.output.append(<const uint8_t*>packet, len(packet))
                self.transport.wake()
            elif self.in_flight.unsent is not None:
                return 0
        return self.send_queued()

    # ------------------------------------------------------------ from the client

    cdef int acknowledge(self, uint32_t token) except -1:
        """Acknowledge a PUBLISH that NATS has confirmed, or that was refused. Hot path.

        `token` is what `received.pxd` says; that of a QoS 1 message below MQTT 5 is in no table.
        """
        cdef uint16_t packet_id = <uint16_t>(token & 0xFFFF)
        cdef uint8_t reason_code = SUCCESS
        cdef bint wanted = True
        if self.acks_due:
            self.acks_due -= 1
        if token >> GENERATION_SHIFT:
            if self.stored is not None and <uint8_t>(token >> PACKET_TYPE_SHIFT) == PUBREC:
                self.stored.change()
            wanted = self.received is not None and self.received.acknowledge(token, &reason_code)
        if self.connection is None:
            if self.received is not None:
                self.received.take_reason(packet_id)
            return self.at_rest()
        if wanted:
            self.append_acknowledgement(<uint8_t>(token >> PACKET_TYPE_SHIFT), packet_id, reason_code)
        if self.connection.input_ended:
            return self.connection.end_of_input()
        return self.transport.wake()

    cdef int append_acknowledgement(self, uint8_t packet_type, uint16_t packet_id, uint8_t reason_code) except -1:
        """Append a PUBACK or PUBREC, with the Reason String of a refusal if the client wants it. Hot path."""
        cdef bytes phrase = None
        if reason_code == 0 or self.level < LEVEL_5:
            return append_ack(self.connection.output, packet_type, packet_id)
        if self.received is not None:
            phrase = self.received.take_reason(packet_id)
        self.properties.size = 0
        if phrase is not None and not self.is_too_large(len(phrase) + ACK_OVERHEAD):
            append_text(self.properties, REASON_STRING, slice_of(phrase))
        return append_ack_with_reason(
            self.connection.output, packet_type, packet_id, reason_code,
            Slice(self.properties.data, self.properties.size),
        )

    cdef bint is_too_large(self, Py_ssize_t size) noexcept:
        """Return whether a packet of so many bytes is larger than the client takes."""
        return self.packet_size_max and size > self.packet_size_max

    cdef bint refuse_packet(self, uint16_t packet_id, int status, str reason_phrase) except -1:
        """Have the acknowledgement of a message refuse it (MQTT 5, 4.3). Return False if it has been sent."""
        cdef bytes reason = None
        if self.received is None or self.level < LEVEL_5:
            return False
        if self.problem_information:
            reason = reason_phrase.encode("utf-8", "replace")[:REASON_PHRASE_SIZE_MAX]
        return self.received.refuse(packet_id, reason_codes.code_of_status(status), reason)

    cdef uint32_t sequence_of_acknowledged(self, uint16_t packet_id) except? 0:
        """Return the sequence of a message of MQTT 5 at QoS 1 or 2."""
        cdef uint32_t sequence = OF_ACKNOWLEDGED | <uint32_t>packet_id << PACKET_ID_SHIFT
        if self.several is not None and len(self.several.by_number) + self.waiting_count >= ATTACHMENT_MASK:
            # Too many names for the field: the answer gets the one under which the endpoint was used last.
            return sequence | ATTACHMENT_MASK
        return sequence | BY_ATTACHMENT

    cdef int on_pubrel(self, uint16_t packet_id) except -1:
        """The client knows that we have its message: free the packet identifier (4.3.3)."""
        if self.received is not None:
            self.received.close(packet_id)
            if self.stored is not None:
                self.stored.change()
        append_ack(self.connection.output, PUBCOMP, packet_id)
        return self.transport.wake()

    # ------------------------------------------------------------ to the client

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Publish an ExtensionData to `.../status` or `.../error`. Hot path."""
        cdef Attachment attachment = None
        cdef Addressee addressee
        cdef Slice topic
        cdef int status = delivery.data.status_code
        cdef bint success = 200 <= status < 300
        cdef uint8_t qos
        cdef Outgoing message
        if self.closed or (self.connection is None and self.clean) \
                or (delivery.correlated and delivery.service == REQUEST):  # the service of other protocols
            return False
        if delivery.correlated and delivery.sequence >= OF_REQUEST:
            return self.respond(delivery)
        if endpoint is not None and delivery.correlated:
            attachment = self.attachment_of(endpoint, attachment_number(delivery.sequence))
        elif delivery.attachment != NULL:
            attachment = <Attachment>delivery.attachment
        topic = NOTHING
        if success and delivery.attachment != NULL:
            topic = pushed_topic(attachment.push_topic, delivery.data.address)
        if topic.data == NULL:
            if not find_addressee(self, delivery, endpoint, attachment, &addressee):
                return False
            if not self.write_topic(delivery.data, &addressee, success):
                self.counters.count("dropped", "no_topic")
                drop_receipt(delivery.receipt, "no_topic")
                return True
            topic = Slice(self.scratch.data, self.scratch.size)
            if success and delivery.attachment != NULL and delivery.data.address.size + topic.size <= PUSH_TOPIC_MAX:
                attachment.push_topic = to_bytes(delivery.data.address) + to_bytes(topic)
        if delivery.correlated:
            qos = self.answer_qos(topic, <uint8_t>delivery.service)
        else:
            qos = 0 if self.subscriptions is None else self.subscriptions.pushed_qos(topic)
        if qos == 0 and self.connection is None:
            return False
        if self.entry is not None and not delivery.correlated and self.is_repeated_push(delivery):
            if delivery.receipt != NULL:
                (<Receipt>delivery.receipt).end(REPEATED, None)
            return True
        if success and qos == 0 and self.level < LEVEL_5:
            append_publish(self.connection.output, self.level, 0, topic, 0, NOTHING, delivery.data.payload)
            self.transport.wake()
        elif success:
            message = Outgoing(
                topic, delivery.data.payload, NOTHING, deadline_of(delivery), qos, not delivery.data.has_request_id,
                delivery.receipt,
            )
            self.prepare(&message, None)
            self.send(&message)
        else:
            self.send_error(
                topic, qos, status, phrase_of(status, delivery.data.reason_phrase), deadline_of(delivery),
                delivery.receipt,
            )
        return True

    cdef bint write_topic(
        self, const ExtensionDataView* data, const Addressee* addressee, bint success
    ) except -1:
        """Write the topic of an ExtensionData to `scratch`. Return False if it has none. Hot path."""
        if addressee.app_version.data == NULL or data.extension_instance_name.data == NULL \
                or not is_clean_topic_again(&last_version, addressee.app_version) \
                or not is_clean_topic_again(&last_path, data.resource_path) \
                or not is_clean_topic_again(&last_extension, data.extension_instance_name):
            return False
        self.scratch.size = 0
        append_topic(
            self.scratch, addressee.app_version, data.extension_instance_name, addressee.token, data.resource_path,
            data.has_request_id, data.request_id, slice_of(STATUS_SUFFIX if success else ERROR_SUFFIX),
        )
        return self.scratch.size <= TOPIC_SIZE_MAX

    cdef bint is_repeated_push(self, const Delivery* delivery) except -1:
        """Return whether the client has got a push before, perhaps from another worker. Remember it if not."""
        cdef uint64_t digest
        if delivery.data.correlation_id.size == 0:
            return False
        digest = digest_of_push(delivery.data.correlation_id, delivery.data.resource_path, delivery.data.payload)
        if self.pushes is None:
            self.pushes = RecentPushes()
        elif self.pushes.has(digest):
            self.counters.count("dropped", "repeated_push")
            return True
        self.pushes.add(digest)
        return False

    cdef bint respond(self, const Delivery* delivery) except -1:
        """Publish an ExtensionData to the Response Topic of its request, and nowhere else (MQTT 5, 4.10)."""
        cdef AwaitedResponse awaited = None
        cdef int status = delivery.data.status_code
        if self.responses is not None:
            awaited = self.responses.take(delivery.sequence & REQUEST_MASK)
        if awaited is None:
            self.counters.count("dropped", "late_answer")
            return True
        self.send_response(
            awaited, <uint8_t>delivery.service, status, phrase_of(status, delivery.data.reason_phrase),
            delivery.data.payload if 200 <= status < 300 else NOTHING, deadline_of(delivery),
        )
        return True

    cdef int send_response(
        self, AwaitedResponse awaited, uint8_t qos, int status, str reason_phrase, Slice payload, int64_t deadline
    ) except -1:
        """Publish an answer to a Response Topic, with the Correlation Data of its request.

        The payload of an error is that of 1/KP.
        """
        cdef Outgoing message
        cdef Buffer own = Buffer()
        cdef bytes error = None
        if awaited.correlation_data is not None:
            append_text(own, CORRELATION_DATA, slice_of(awaited.correlation_data))
        append_user_property(own, slice_of(b"statusCode"), slice_of(b"%d" % status))
        phrase = reason_phrase.encode("utf-8", "replace")
        append_user_property(own, slice_of(b"reasonPhrase"), slice_of(phrase))
        if not 200 <= status < 300:
            error = error_payload(status, reason_phrase)
            payload = slice_of(error)
        message = Outgoing(slice_of(awaited.topic), payload, NOTHING, deadline, 0, True, NULL)
        message.qos = self.answer_qos(message.topic, qos)
        self.prepare(&message, own)
        return self.send(&message)

    cdef int prepare(self, Outgoing* message, Buffer own) except -1:
        """Give a message its properties: its own, if it has any, and the Subscription Identifiers that match. Hot path.

        They are in the sessions' common buffer, until the next message.
        """
        if own is None and (self.subscriptions is None or self.subscriptions.identifiers is None):
            return 0
        self.properties.size = 0
        if own is not None:
            self.properties.append(own.data, own.size)
        if self.subscriptions is not None:
            self.subscriptions.append_identifiers(self.properties, message.topic)
        message.properties = Slice(self.properties.data, self.properties.size)
        return 0

    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1:
        """Tell the client that the gateway refuses its message.

        MQTT 5 has a reason code in PUBACK and PUBREC; an error is published as well if the message has a request ID or
        a Response Topic. Below that, at QoS 1 and 2 the error is published even without a request ID, because PUBACK
        alone would mean that the message was accepted. At QoS 0 nobody waits for it then.
        """
        cdef AwaitedResponse awaited = None
        cdef uint32_t kind = sequence & KIND_MASK
        cdef bint told = service == 0
        if self.closed:
            return 0
        if kind == OF_REQUEST:
            if self.responses is not None:
                awaited = self.responses.take(sequence & REQUEST_MASK)
            if awaited is None:
                return 0
            if awaited.packet_id:
                self.refuse_packet(awaited.packet_id, status, reason_phrase)
            return self.send_response(awaited, <uint8_t>service, status, reason_phrase, NOTHING, 0)
        if kind == OF_ACKNOWLEDGED:
            told = self.refuse_packet(<uint16_t>(sequence >> PACKET_ID_SHIFT), status, reason_phrase)
        if (told and not has_request_id) or topic.size + len(ERROR_SUFFIX) > TOPIC_SIZE_MAX:
            return 0
        full = topic.data[:topic.size] + ERROR_SUFFIX
        return self.send_error(
            slice_of(full), self.answer_qos(slice_of(full), <uint8_t>service), status, reason_phrase, 0, NULL
        )

    cdef uint8_t answer_qos(self, Slice topic, uint8_t qos) except 0xFF:
        """Return the QoS of the answer to a message of this QoS: at most that of a subscription that matches it.

        An answer that matches no subscription keeps its QoS. Hot path.
        """
        cdef int granted
        if qos == 0 or self.subscriptions is None:
            return qos
        granted = self.subscriptions.qos_of(topic)
        return qos if granted == NO_MATCH else <uint8_t>min(<int>qos, granted)

    cdef int send_error(
        self, Slice topic, uint8_t qos, int status, str reason_phrase, int64_t deadline, PyObject* receipt
    ) except -1:
        """Publish the error payload of 1/KP."""
        cdef bytes payload = error_payload(status, reason_phrase)
        cdef Outgoing message = Outgoing(topic, slice_of(payload), NOTHING, deadline, qos, False, receipt)
        self.prepare(&message, None)
        return self.send(&message)

    cdef int send(self, const Outgoing* message) except -1:
        """Publish to the client now, or when it is back and its window has room. Hot path."""
        cdef Py_ssize_t size = size_of(message)
        if message.qos == 0:
            if self.connection is None:
                return self.counters.count("dropped", "client_offline")
            if not append_message(
                self.connection.output, self.level, self.packet_size_max, self.aliases, message, 0, 0
            ):
                return self.drop_message(message, "mqtt_packet_size_of_client")
            return self.transport.wake()
        if self.connection is not None and (self.queued is None or not self.queued.messages) and (
                self.in_flight is None or self.in_flight.has_room(size, self.window, self.limits.queued_bytes)):
            return self.send_in_flight(message)
        if self.queued is None:
            self.queued = MessageQueue()
        if len(self.queued.messages) >= self.limits.queued_messages \
                or self.queued.bytes + size > self.limits.queued_bytes \
                or (self.state == OFFLINE and not self.store.make_room(self, size + MESSAGE_OVERHEAD)):
            return self.drop_message(message, "session_queue_full")
        if self.stored is not None:
            self.stored.queue_one()
            if message.receipt != NULL:
                self.stored.hold(<Receipt>message.receipt)
        return self.queued.append(message)

    cdef int drop_message(self, const Outgoing* message, str reason) except -1:
        """Count a message that does not reach the client, and report it if it is a push with a receipt."""
        drop_receipt(message.receipt, reason)
        return self.counters.count("dropped", reason)

    cdef int send_in_flight(self, const Outgoing* message) except -1:
        """Publish at QoS 1 or 2, and keep the packet until it is acknowledged. Hot path.

        What is kept has no Topic Alias, because it may be sent again over another connection.
        """
        cdef Buffer output = self.connection.output
        cdef Py_ssize_t before = output.size
        cdef uint8_t flags = <uint8_t>(message.qos << 1)
        cdef uint16_t packet_id
        if self.in_flight is None:
            self.in_flight = InFlight()
        packet_id = self.in_flight.next_packet_id()
        if not append_message(output, self.level, self.packet_size_max, None, message, flags, packet_id):
            return self.drop_message(message, "mqtt_packet_size_of_client")
        self.in_flight.add(packet_id, output.data[before:output.size], self.level, message.deadline)
        if message.receipt != NULL:
            self.in_flight.add_receipt(packet_id, kept_receipt(message.receipt))
        if self.stored is not None:
            self.stored.change_messages()
            if message.receipt != NULL and not (<Receipt>message.receipt).held:
                self.stored.hold(<Receipt>message.receipt)
        if self.aliases is not None:
            output.size = before
            append_message(output, self.level, self.packet_size_max, self.aliases, message, flags, packet_id)
        return self.transport.wake()

    cdef int send_queued(self) except -1:
        """Send queued messages while the window has room, and drop those that have expired."""
        cdef QueuedMessage queued
        cdef Outgoing message
        while self.queued is not None and self.queued.messages:
            queued = self.queued.first()
            message = queued.outgoing()
            if message.deadline and message.deadline <= now_ms():
                self.drop_message(&message, "expired")
            elif self.in_flight is not None and not self.in_flight.has_room(
                    size_of(&message), self.window, self.limits.queued_bytes):
                break
            else:
                self.send_in_flight(&message)
            self.queued.remove_first()
        return 0

    cdef int on_puback(self, uint16_t packet_id, uint8_t reason_code) except -1:
        """The client has a QoS 1 message, or refuses it. An unknown packet identifier is an old one and is ignored."""
        if self.in_flight is not None and self.in_flight.on_puback(packet_id, reason_code < UNSPECIFIED_ERROR):
            self.on_acknowledged()
        return 0

    cdef int on_pubrec(self, uint16_t packet_id, uint8_t reason_code) except -1:
        """The client has a QoS 2 message: send PUBREL, which lets it forget the packet identifier (4.3.3).

        One that refuses the message has forgotten it already (MQTT 5, 4.3.3).
        """
        if reason_code >= UNSPECIFIED_ERROR:
            return self.on_puback(packet_id, reason_code)
        append_ack(self.connection.output, PUBREL, packet_id)
        self.transport.wake()
        if self.in_flight is not None and self.in_flight.on_pubrec(packet_id):
            self.on_acknowledged()
        return 0

    cdef int on_pubcomp(self, uint16_t packet_id) except -1:
        """The client has forgotten the packet identifier, which is free again."""
        if self.in_flight is not None and self.in_flight.on_pubcomp(packet_id):
            self.on_acknowledged()
        return 0

    cdef int on_acknowledged(self) except -1:
        """Go on sending: a packet in flight has been acknowledged. Hot path."""
        if self.stored is not None:
            self.stored.change_messages()
        return self.send_again()

    # ------------------------------------------------------------ subscriptions

    cdef uint8_t subscribe(self, Slice topic_filter, uint8_t qos, uint32_t identifier) except? 0x7F:
        """Remember a topic filter. Return its SUBACK code."""
        cdef bytes name
        cdef uint8_t failure = UNSPECIFIED_ERROR if self.level < LEVEL_5 else QUOTA_EXCEEDED
        if topic_filter.size > self.limits.topic_filter_size:
            self.counters.count("refused", "topic_filter_too_long")
            return failure
        name = topic_filter.data[:topic_filter.size]
        if self.subscriptions is None:
            self.subscriptions = Subscriptions()
        if name not in self.subscriptions.granted and len(self.subscriptions.granted) >= self.limits.subscriptions:
            self.counters.count("refused", "too_many_subscriptions")
            return failure
        self.subscriptions.add(name, qos, identifier)
        if self.stored is not None:
            self.stored.change()
        return qos

    cdef uint8_t unsubscribe(self, Slice topic_filter) except? 0x7F:
        """Forget a topic filter. Return its UNSUBACK code."""
        if self.subscriptions is not None and self.subscriptions.remove(topic_filter.data[:topic_filter.size]):
            if self.stored is not None:
                self.stored.change()
            return SUCCESS
        return NO_SUBSCRIPTION_EXISTED


cdef inline uint32_t attachment_number(uint32_t sequence) noexcept nogil:
    """Return the number of the attachment that a sequence names. Hot path."""
    return sequence & ATTACHMENT_MASK if sequence & KIND_MASK else sequence


cdef Py_ssize_t size_of_topics(list names) except -1:
    """Return the bytes that registered topics take, roughly."""
    cdef Py_ssize_t size = 0
    for name in names:
        size += TOPIC_OVERHEAD + len(<bytes>name)
    return size


cdef inline Slice pushed_topic(bytes known, Slice address) noexcept:
    """Return the topic in `Attachment.push_topic` if it is that of an address, else an absent value. Hot path.

    The fields of an address end by what they say themselves, so none begins with another one.
    """
    cdef Slice both = slice_of(known)
    if both.size > address.size and memcmp(both.data, address.data, <size_t>address.size) == 0:
        return Slice(both.data + address.size, both.size - address.size)
    return NOTHING
