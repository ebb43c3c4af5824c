"""What the server remembers of one client: packet identifiers in flight both ways, subscriptions, queued messages.

A session outlives its connection if the client asked for that. Delivery does not depend on subscriptions: an answer
or push goes to the session that speaks for its endpoint, whether or not it subscribed; a subscription only says at
which QoS its client wants a push. A session is of no protocol level: its client may come back with another one.

Source: MQTT 3.1.1 sections 3.1.2.4 (Clean Session), 4.3 (QoS), 4.4 (delivery retry); MQTT 5 sections 3.3.2.3 (PUBLISH
properties), 4.1 (session state), 4.9 (flow control), 4.10 (request / response); 1/KP, responses.
"""

from collections import deque
from http import HTTPStatus

import msgspec

from kaa_gateway.clock cimport now_ms
from kaa_gateway.kp.correlation cimport REQUEST
from kaa_gateway.kp.resource_path cimport CleanText, append_topic, is_clean_topic_again
from kaa_gateway.kp.session cimport Attachment, Session
from kaa_gateway.mqtt.received cimport ReceivedMessage
from kaa_gateway.mqtt.response_topics cimport AwaitedResponse
from kaa_gateway.mqtt.subscriptions cimport NO_MATCH
from kaa_gateway.wire.buffer cimport slice_of, to_bytes
from kaa_gateway.wire.mqtt cimport (
    LEVEL_3_1, LEVEL_3_1_1, LEVEL_5, NO_SUBSCRIPTION_EXISTED, PUBCOMP, PUBREC, PUBREL, QUOTA_EXCEEDED,
    REMAINING_LENGTH_MAX, SUCCESS, UNSPECIFIED_ERROR, Packet, PublishView, append_ack, append_ack_with_reason,
    append_publish, next_packet, publish_size, read_publish,
)
from kaa_gateway.wire.mqtt_properties cimport (
    CORRELATION_DATA, MESSAGE_EXPIRY_INTERVAL, REASON_STRING, TOPIC_ALIAS, append_text, append_uint16, append_uint32,
    append_user_property, has,
)

from kaa_gateway.mqtt import reason_codes

cdef enum:
    TOPIC_SIZE_MAX = 65535    # bytes
    REASON_PHRASE_SIZE_MAX = 1024  # bytes of an extension's reason phrase; the rest is cut off
    PUBREL_SIZE = 4           # bytes
    ACK_OVERHEAD = 12         # bytes of a PUBACK beside its Reason String, at most
    # Bytes of a session, a message and an endpoint beside what is counted of them.
    SESSION_OVERHEAD = 1024
    MESSAGE_OVERHEAD = 192
    ENDPOINT_OVERHEAD = 512
    EXPIRY_SIZE = 5           # bytes of a Message Expiry Interval
    ALIAS_SIZE = 3            # bytes of a Topic Alias
    DUP = 0x08                # flag of PUBLISH
    SEND_AGAIN_PART = 4       # the part of the output buffer is one fourth

cdef int64_t DEADLINE_MAX = 1 << 62  # ms since the epoch
cdef Slice NOTHING = Slice(NULL, 0)
cdef dict VERSIONS = {LEVEL_3_1: "3.1", LEVEL_3_1_1: "3.1.1", LEVEL_5: "5.0"}
cdef bytes STATUS_SUFFIX = b"/status"
cdef bytes ERROR_SUFFIX = b"/error"

# The names checked last: extensions mostly send the same ones again, which then need no check.
cdef CleanText last_version
cdef CleanText last_extension
cdef CleanText last_path


cdef class MqttLimits:
    """The limits of sessions.

    Of each: messages in flight to the client, messages queued behind them and their bytes, topic filters and the bytes
    of one. Of those whose clients are offline: their number, the seconds for which they are kept, and their bytes.
    """

    def __init__(
        self, in_flight_window, queued_messages, queued_bytes, subscriptions, topic_filter_size, persistent_sessions,
        session_expiry, persistent_bytes,
    ):
        self.in_flight_window = in_flight_window
        self.queued_messages = queued_messages
        self.queued_bytes = queued_bytes
        self.subscriptions = subscriptions
        self.topic_filter_size = topic_filter_size
        self.persistent_sessions = persistent_sessions
        self.session_expiry = session_expiry
        self.persistent_bytes = persistent_bytes

    def set_sizes(self, queued_bytes, topic_filter_size):
        """Change limits, for what comes from now on."""
        self.queued_bytes = queued_bytes
        self.topic_filter_size = topic_filter_size


cdef class QueuedMessage:
    """A copy of a message that waits for a place in the window: see Outgoing."""

    cdef bytes topic
    cdef bytes payload
    cdef bytes properties
    cdef int64_t deadline
    cdef uint8_t qos
    cdef bint repeats

    cdef Outgoing outgoing(self) noexcept:
        """Return the message, borrowed from this copy."""
        return Outgoing(
            slice_of(self.topic), slice_of(self.payload), slice_of(self.properties), self.deadline, self.qos,
            self.repeats,
        )


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
        self.window = min(<uint32_t>self.limits.in_flight_window, options.receive_maximum)
        self.packet_size_max = options.packet_size_max
        self.problem_information = options.problem_information
        self.unacknowledged = 0
        self.aliases = SentAliases(options.topic_alias_maximum) if options.topic_alias_maximum else None
        return 0

    cdef int unbind(self, double now) except -1:
        """The client's connection has ended, at loop time `now`."""
        self.state = OFFLINE
        self.connection = None
        self.transport = None
        self.offline_since = now
        self.aliases = None
        self.unsent = None
        self.sent_bytes = 0
        return 0

    cdef int resume(self) except -1:
        return self.connection.resume() if self.connection is not None else 0

    cdef int end(self, str reason) except -1:
        if self.connection is not None:
            return self.connection.end(reason)
        self.counters.count("dropped", reason)
        return self.store.discard(self)

    def describe(self):
        """Return what an operator may see of it."""
        return {
            **Session.describe(self),
            "clientId": self.client_id,
            "version": VERSIONS.get(self.level),
            "clean": bool(self.clean),
            "sessionExpiry": self.expiry,
            "subscriptions": 0 if self.subscriptions is None else len(self.subscriptions.granted),
            "inFlight": 0 if self.in_flight is None else len(self.in_flight),
            "queued": 0 if self.queued is None else len(self.queued),
        }

    def is_of(self, str client_id not None):
        """Return whether its client has this client identifier."""
        return self.client_id == client_id

    cdef Py_ssize_t memory(self) except -1:
        """Return the bytes that the session takes, roughly."""
        cdef Py_ssize_t size = SESSION_OVERHEAD + self.queued_bytes + self.in_flight_bytes, messages = 0
        if self.subscriptions is not None:
            size += self.subscriptions.bytes
        if self.received is not None:
            size += self.received.memory()
        if self.responses is not None:
            size += self.responses.bytes
        if self.queued is not None:
            messages += len(self.queued)
        if self.in_flight is not None:
            messages += len(self.in_flight)
        if self.attached is not None:
            size += ENDPOINT_OVERHEAD * len(self.attached)
        return size + MESSAGE_OVERHEAD * messages

    cdef int begin_sending_again(self) except -1:
        """The client has resumed the session: send what it has not acknowledged (4.4), then what was queued."""
        if self.in_flight:
            self.encode_again()
            self.unsent = dict.fromkeys(self.in_flight)
        return self.send_again()

    cdef int encode_again(self) except -1:
        """Encode what is in flight for this connection: its protocol level, its packet size, the time that is left.

        A message that has become too large for the client counts as sent (MQTT 5, 3.1.2.11.4).
        """
        cdef Packet packet
        cdef PublishView publish
        cdef Outgoing message
        cdef Buffer again = Buffer()
        cdef bytes former
        cdef uint8_t level = self.level_in_flight
        if self.level == level and not self.deadlines and not self.packet_size_max:
            return 0
        self.level_in_flight = self.level
        for packet_id, former in list(self.in_flight.items()):
            if former is None:
                continue
            next_packet(<const uint8_t*>former, len(former), REMAINING_LENGTH_MAX, &packet)
            read_publish(&packet, level, &publish)
            message = Outgoing(publish.topic, publish.payload, NOTHING, 0, publish.qos, False)
            if level >= LEVEL_5:
                message.properties = publish.properties.encoded
                if has(&publish.properties, MESSAGE_EXPIRY_INTERVAL):  # always the first
                    message.properties.data += EXPIRY_SIZE
                    message.properties.size -= EXPIRY_SIZE
            if self.deadlines is not None:
                message.deadline = self.deadlines.get(packet_id, 0)
            again.size = 0
            self.in_flight_bytes -= len(former)
            if self.append_message(again, &message, packet.flags, packet_id, False):
                self.in_flight[packet_id] = again.copy()
                self.in_flight_bytes += again.size
            else:
                del self.in_flight[packet_id]
        return 0

    cdef int send_again(self) except -1:
        """Send what is unsent over this connection, in its order (4.6), and after all of it what is queued.

        No more than a part of the output buffer is unacknowledged meanwhile: a client must not be closed as a slow
        reader for what it was sent before.
        """
        cdef Py_ssize_t size
        while self.unsent:
            packet_id = next(iter(self.unsent))
            packet = self.in_flight[packet_id]
            size = PUBREL_SIZE if packet is None else len(packet)
            if packet is not None and <uint32_t>(len(self.in_flight) - len(self.unsent)) >= self.window:
                return 0  # the client takes fewer than it did over a former connection
            if self.sent_bytes and self.sent_bytes + size > self.limits.queued_bytes // SEND_AGAIN_PART:
                return 0
            del self.unsent[packet_id]
            self.sent_bytes += size
            if packet is None:
                append_ack(self.connection.output, PUBREL, packet_id)
            else:
                again = bytes([packet[0] | DUP]) + packet[1:]
                self.connection.output.append(<const uint8_t*><bytes>again, size)
            self.transport.wake()
        self.unsent = None
        return self.send_queued()

    cdef int acknowledged(self, uint16_t packet_id, Py_ssize_t before, Py_ssize_t after) except -1:
        """The client has acknowledged a packet in flight of `before` bytes, of which `after` remain in flight."""
        self.in_flight_bytes += after - before
        self.sent_bytes += after
        if self.deadlines:
            self.deadlines.pop(packet_id, None)
        if self.unsent is not None and packet_id in self.unsent:
            del self.unsent[packet_id]  # it was sent over a former connection only
        else:
            self.sent_bytes -= before
        return self.send_again()

    # ------------------------------------------------------------ from the client

    cdef int acknowledge(self, uint32_t token) except -1:
        """Acknowledge a PUBLISH that NATS has confirmed, or that was refused. Hot path.

        `token` is its packet identifier, above it the packet type of the answer, and above that the generation of the
        message, which is 0 for one of QoS 1 that is not tracked.
        """
        cdef uint16_t packet_id = <uint16_t>(token & 0xFFFF)
        cdef uint8_t packet_type = <uint8_t>(token >> 16), reason_code = 0
        cdef ReceivedMessage* message
        cdef bint wanted = True
        if self.acks_due:
            self.acks_due -= 1
        if packet_type == PUBREC or token >> 24:
            message = NULL if self.received is None else self.received.find(packet_id)
            # After a PUBREL the client knows already; after another message under the identifier, it asks no more.
            wanted = message != NULL and message.generation == <uint8_t>(token >> 24)
            if wanted:
                reason_code = message.reason_code
                if packet_type == PUBREC and reason_code < UNSPECIFIED_ERROR:
                    message.confirmed = True
                else:
                    self.received.discard(packet_id)
                    self.forget_unacknowledged()
        if self.connection is None:
            if self.refusals is not None:
                self.refusals.pop(packet_id, None)
            return 0
        if wanted:
            self.append_acknowledgement(packet_type, packet_id, reason_code)
        if self.connection.input_ended:
            return self.connection.end_of_input()
        return self.transport.wake()

    cdef int append_acknowledgement(self, uint8_t packet_type, uint16_t packet_id, uint8_t reason_code) except -1:
        """Append a PUBACK or PUBREC, with the Reason String of a refusal if the client wants it. Hot path."""
        cdef bytes phrase = None
        if reason_code == 0 or self.level < LEVEL_5:
            return append_ack(self.connection.output, packet_type, packet_id)
        if self.refusals is not None:
            phrase = self.refusals.pop(packet_id, None)
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

    cdef int forget_unacknowledged(self) except -1:
        """A message of the client has its PUBACK or PUBCOMP, and leaves the Receive Maximum (MQTT 5, 4.9)."""
        if self.unacknowledged:
            self.unacknowledged -= 1
        return 0

    cdef bint refuse_packet(self, uint16_t packet_id, int status, str reason_phrase) except -1:
        """Have the acknowledgement of a message refuse it (MQTT 5, 4.3). Return False if it has been sent."""
        cdef ReceivedMessage* message = NULL if self.received is None else self.received.find(packet_id)
        if message == NULL or message.confirmed or self.level < LEVEL_5:
            return False
        message.reason_code = reason_codes.code_of_status(status)
        if self.problem_information:
            if self.refusals is None:
                self.refusals = {}
            self.refusals[packet_id] = reason_phrase.encode("utf-8", "replace")[:REASON_PHRASE_SIZE_MAX]
        return True

    cdef int on_pubrel(self, uint16_t packet_id) except -1:
        """The client knows that we have its message: free the packet identifier (4.3.3)."""
        if self.received is not None and self.received.find(packet_id) != NULL:
            self.received.discard(packet_id)
            self.forget_unacknowledged()
        append_ack(self.connection.output, PUBCOMP, packet_id)
        return self.transport.wake()

    # ------------------------------------------------------------ to the client

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Publish an ExtensionData to `.../status` or `.../error`. Hot path."""
        cdef Attachment attachment = None
        cdef Slice app_version = delivery.data.app_version_name, token = Slice(NULL, 0), topic
        cdef int status = delivery.data.status_code
        cdef bint success = 200 <= status < 300
        cdef uint8_t qos
        cdef Outgoing message
        if self.closed or (self.connection is None and self.clean) \
                or (delivery.correlated and delivery.service == REQUEST):  # the service of other protocols
            return False
        if delivery.correlated and delivery.sequence >= OF_REQUEST:
            return self.respond(delivery)
        if endpoint is not None:
            if delivery.correlated:
                attachment = self.attachment_of(endpoint, attachment_number(delivery.sequence))
            elif delivery.attachment != NULL:
                attachment = <Attachment>delivery.attachment
            else:
                attachment = <Attachment>endpoint.sessions.get(self)
            if attachment is None:
                self.counters.count("dropped", "wrong_endpoint")
                return False
            token = slice_of(attachment.token)
            if app_version.data == NULL:
                app_version = slice_of(attachment.app_version)
        elif delivery.data.endpoint_id.data != NULL:
            return False
        if app_version.data == NULL or delivery.data.extension_instance_name.data == NULL \
                or not is_clean_topic_again(&last_version, app_version) \
                or not is_clean_topic_again(&last_path, delivery.data.resource_path) \
                or not is_clean_topic_again(&last_extension, delivery.data.extension_instance_name):
            self.counters.count("dropped", "no_topic")
            return True
        self.scratch.size = 0
        append_topic(
            self.scratch, app_version, delivery.data.extension_instance_name, token, delivery.data.resource_path,
            delivery.data.has_request_id, delivery.data.request_id,
            slice_of(STATUS_SUFFIX if success else ERROR_SUFFIX),
        )
        topic = Slice(self.scratch.data, self.scratch.size)
        if topic.size > TOPIC_SIZE_MAX:
            self.counters.count("dropped", "no_topic")
            return True
        if delivery.correlated:
            qos = self.answer_qos(topic, <uint8_t>delivery.service)
        else:
            qos = 0 if self.subscriptions is None else self.subscriptions.pushed_qos(topic)
        if qos == 0 and self.connection is None:
            return False
        if success:
            message = Outgoing(
                topic, delivery.data.payload, NOTHING, deadline_of(delivery), qos, not delivery.data.has_request_id
            )
            self.prepare(&message, None)
            self.send(&message)
        else:
            self.send_error(
                topic, qos, status, phrase_of(status, delivery.data.reason_phrase), deadline_of(delivery)
            )
        return True

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
        message = Outgoing(slice_of(awaited.topic), payload, NOTHING, deadline, 0, True)
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
            slice_of(full), self.answer_qos(slice_of(full), <uint8_t>service), status, reason_phrase, 0
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

    cdef int send_error(self, Slice topic, uint8_t qos, int status, str reason_phrase, int64_t deadline) except -1:
        """Publish the error payload of 1/KP."""
        cdef bytes payload = error_payload(status, reason_phrase)
        cdef Outgoing message = Outgoing(topic, slice_of(payload), NOTHING, deadline, qos, False)
        self.prepare(&message, None)
        return self.send(&message)

    cdef int send(self, const Outgoing* message) except -1:
        """Publish to the client now, or when it is back and its window has room. Hot path."""
        cdef QueuedMessage queued
        cdef Py_ssize_t size = message.topic.size + message.payload.size + message.properties.size
        if message.qos == 0:
            if self.connection is None:
                return self.counters.count("dropped", "client_offline")
            if not self.append_message(self.connection.output, message, 0, 0, True):
                return 0
            return self.transport.wake()
        if self.connection is not None and not self.queued and self.has_room(size):
            return self.send_in_flight(message)
        if self.queued is None:
            self.queued = deque()
        if len(self.queued) >= self.limits.queued_messages \
                or self.queued_bytes + size > self.limits.queued_bytes \
                or (self.state == OFFLINE and not self.store.make_room(self, size + MESSAGE_OVERHEAD)):
            return self.counters.count("dropped", "session_queue_full")
        queued = QueuedMessage()
        queued.topic = to_bytes(message.topic)
        queued.payload = message.payload.data[:message.payload.size]  # of no payload, data is NULL
        queued.properties = to_bytes(message.properties)
        queued.deadline = message.deadline
        queued.qos = message.qos
        queued.repeats = message.repeats
        self.queued_bytes += size
        self.queued.append(queued)
        return 0

    cdef bint append_message(
        self, Buffer out, const Outgoing* message, uint8_t flags, uint16_t packet_id, bint aliased
    ) except -1:
        """Append a PUBLISH, of MQTT 5 with its properties. Hot path.

        Return False if it is larger than the client takes: then it counts as sent, and others go on.
        """
        cdef Buffer properties
        cdef Slice topic = message.topic
        cdef Py_ssize_t size
        cdef bytes name = None
        cdef uint32_t alias = 0
        if self.level < LEVEL_5:
            append_publish(out, self.level, flags, topic, packet_id, NOTHING, message.payload)
            return True
        if self.packet_size_max:
            size = message.properties.size + (EXPIRY_SIZE if message.deadline else 0)
            if self.is_too_large(publish_size(self.level, topic.size, size, message.payload.size, message.qos)):
                self.counters.count("dropped", "mqtt_packet_size_of_client")
                return False
            size = publish_size(self.level, topic.size, size + ALIAS_SIZE, message.payload.size, message.qos)
            aliased = aliased and not self.is_too_large(size)
        if aliased and self.aliases is not None:
            name = to_bytes(topic)
            alias = self.aliases.find(name)
            if alias:
                topic.size = 0
            elif message.repeats:
                alias = self.aliases.assign(name)
        if alias == 0 and message.deadline == 0:
            append_publish(out, self.level, flags, topic, packet_id, message.properties, message.payload)
            return True
        properties = Buffer()
        if message.deadline:
            append_uint32(properties, MESSAGE_EXPIRY_INTERVAL, seconds_until(message.deadline))
        properties.append(message.properties.data, message.properties.size)
        if alias:
            append_uint16(properties, TOPIC_ALIAS, alias)
        append_publish(
            out, self.level, flags, topic, packet_id, Slice(properties.data, properties.size), message.payload
        )
        return True

    cdef bint has_room(self, Py_ssize_t size) noexcept:
        """Return whether another message, of `size` bytes, may be in flight.

        There is a limit of bytes too, because a client may never acknowledge; one message is always allowed.
        """
        return not self.in_flight or (
            self.unsent is None and <uint32_t>len(self.in_flight) < self.window
            and self.in_flight_bytes + size <= self.limits.queued_bytes
        )

    cdef int send_in_flight(self, const Outgoing* message) except -1:
        """Publish at QoS 1 or 2, and keep the packet until it is acknowledged. Hot path.

        What is kept has no Topic Alias, because it may be sent again over another connection.
        """
        cdef Buffer output = self.connection.output
        cdef Py_ssize_t before = output.size, size
        cdef uint8_t flags = <uint8_t>(message.qos << 1)
        cdef uint16_t packet_id
        if self.in_flight is None:
            self.in_flight = {}
        packet_id = self.next_packet_id()
        if not self.append_message(output, message, flags, packet_id, False):
            return 0
        size = output.size - before
        self.level_in_flight = self.level
        self.in_flight[packet_id] = output.data[before:output.size]
        self.in_flight_bytes += size
        self.sent_bytes += size
        if message.deadline:
            if self.deadlines is None:
                self.deadlines = {}
            self.deadlines[packet_id] = message.deadline
        if self.aliases is not None:
            output.size = before
            self.append_message(output, message, flags, packet_id, True)
        return self.transport.wake()

    cdef uint16_t next_packet_id(self) except 0:
        """Return a free packet identifier. There is one: the window is much smaller than their number."""
        while True:
            self.last_packet_id = 1 if self.last_packet_id == 65535 else self.last_packet_id + 1
            if self.last_packet_id not in self.in_flight:
                return self.last_packet_id

    cdef int send_queued(self) except -1:
        """Send queued messages while the window has room, and drop those that have expired."""
        cdef QueuedMessage message
        cdef Outgoing outgoing
        cdef Py_ssize_t size
        while self.queued:
            message = self.queued[0]
            outgoing = message.outgoing()
            size = outgoing.topic.size + outgoing.payload.size + outgoing.properties.size
            if message.deadline and message.deadline <= now_ms():
                self.counters.count("dropped", "expired")
            elif not self.has_room(size):
                break
            else:
                self.send_in_flight(&outgoing)
            self.queued.popleft()
            self.queued_bytes -= size
        return 0

    cdef int on_puback(self, uint16_t packet_id) except -1:
        """The client has a QoS 1 message, or refuses it. An unknown packet identifier is an old one and is ignored."""
        # A packet identifier that waits for PUBCOMP is in flight as None: PUBACK does not end that.
        packet = None if self.in_flight is None else self.in_flight.get(packet_id)
        if packet is None:
            return 0
        del self.in_flight[packet_id]
        return self.acknowledged(packet_id, len(packet), 0)

    cdef int on_pubrec(self, uint16_t packet_id, uint8_t reason_code) except -1:
        """The client has a QoS 2 message: send PUBREL, which lets it forget the packet identifier (4.3.3).

        One that refuses the message has forgotten it already (MQTT 5, 4.3.3).
        """
        packet = None if self.in_flight is None else self.in_flight.get(packet_id)
        if reason_code >= UNSPECIFIED_ERROR:
            return self.on_puback(packet_id)
        append_ack(self.connection.output, PUBREL, packet_id)
        self.transport.wake()
        if packet is None:
            return 0
        self.in_flight[packet_id] = None
        return self.acknowledged(packet_id, len(packet), PUBREL_SIZE)

    cdef int on_pubcomp(self, uint16_t packet_id) except -1:
        """The client has forgotten the packet identifier, which is free again."""
        if self.in_flight is None or self.in_flight.get(packet_id, b"") is not None:
            return 0
        del self.in_flight[packet_id]
        return self.acknowledged(packet_id, PUBREL_SIZE, 0)

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
        return qos

    cdef uint8_t unsubscribe(self, Slice topic_filter) except? 0x7F:
        """Forget a topic filter. Return its UNSUBACK code."""
        if self.subscriptions is not None and self.subscriptions.remove(topic_filter.data[:topic_filter.size]):
            return SUCCESS
        return NO_SUBSCRIPTION_EXISTED


cdef inline uint32_t attachment_number(uint32_t sequence) noexcept nogil:
    """Return the number of the attachment that a sequence names. Hot path."""
    return sequence & ATTACHMENT_MASK if sequence & KIND_MASK else sequence


cdef inline int64_t deadline_of(const Delivery* delivery) noexcept nogil:
    """Return when a message expires, in ms since the epoch, or 0. Hot path."""
    if delivery.data.timeout <= 0 or delivery.data.timestamp > DEADLINE_MAX - delivery.data.timeout:
        return 0
    return delivery.data.timestamp + delivery.data.timeout


cdef uint32_t seconds_until(int64_t deadline) noexcept:
    """Return the whole seconds that are left, at least one."""
    return <uint32_t>max(1, min((deadline - now_ms() + 999) // 1000, <int64_t>0xFFFFFFFF))


cdef bytes error_payload(int status, str reason_phrase):
    """Return the error payload of 1/KP."""
    return msgspec.json.encode({"statusCode": status, "reasonPhrase": reason_phrase})


cdef str phrase_of(int status, Slice reason_phrase):
    """Return the reason phrase of an extension, or the standard one of the status."""
    if reason_phrase.size:
        return reason_phrase.data[:min(reason_phrase.size, REASON_PHRASE_SIZE_MAX)].decode("utf-8", "replace")
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
