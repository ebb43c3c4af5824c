"""What the server remembers of one client: packet identifiers in flight both ways, subscriptions, queued messages.

A session outlives its connection if the client asked for that (CleanSession 0). Delivery does not depend on
subscriptions: an answer or push goes to the session that speaks for its endpoint, whether or not it subscribed; a
subscription only says at which QoS its client wants a push.

Source: MQTT 3.1.1 sections 3.1.2.4 (Clean Session), 4.3 (QoS), 4.4 (delivery retry); 1/KP, responses.
"""

from collections import deque
from http import HTTPStatus

import msgspec

from kaa_gateway.kp.correlation cimport REQUEST
from kaa_gateway.kp.resource_path cimport CleanText, append_topic, is_clean_topic_again
from kaa_gateway.kp.session cimport Attachment, Session
from kaa_gateway.mqtt.received cimport ReceivedMessage
from kaa_gateway.mqtt.subscriptions cimport NO_MATCH
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.mqtt cimport PUBCOMP, PUBREC, PUBREL, append_ack, append_publish

cdef enum:
    TOPIC_SIZE_MAX = 65535    # bytes
    REASON_PHRASE_SIZE_MAX = 1024  # bytes of an extension's reason phrase; the rest is cut off
    PUBREL_SIZE = 4           # bytes
    # Bytes of a session, a message and an endpoint beside what is counted of them.
    SESSION_OVERHEAD = 1024
    MESSAGE_OVERHEAD = 192
    ENDPOINT_OVERHEAD = 512
    SUBSCRIBE_FAILED = 0x80   # SUBACK return code
    DUP = 0x08                # flag of PUBLISH
    SEND_AGAIN_PART = 4       # the part of the output buffer is one fourth

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


cdef class MqttSession(Session):
    """The session of one client, online or offline."""

    # ------------------------------------------------------------ connection

    cdef int bind(self, ProtocolCore connection, Transport transport) except -1:
        """The client is online, over this connection."""
        self.state = ONLINE
        self.connection = connection
        self.transport = transport
        return 0

    cdef int unbind(self, double now) except -1:
        """The client's connection has ended, at loop time `now`."""
        self.state = OFFLINE
        self.connection = None
        self.transport = None
        self.offline_since = now
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
            "clean": bool(self.clean),
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
            self.unsent = dict.fromkeys(self.in_flight)
        return self.send_again()

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
        if self.unsent is not None and packet_id in self.unsent:
            del self.unsent[packet_id]  # it was sent over a former connection only
        else:
            self.sent_bytes -= before
        return self.send_again()

    # ------------------------------------------------------------ from the client

    cdef int acknowledge(self, uint32_t token) except -1:
        """Acknowledge a PUBLISH that NATS has confirmed. Hot path.

        `token` is its packet identifier, above it the packet type of the answer, and above that, at QoS 2, the
        generation of the message.
        """
        cdef uint16_t packet_id = <uint16_t>(token & 0xFFFF)
        cdef uint8_t packet_type = <uint8_t>(token >> 16)
        cdef ReceivedMessage* message
        cdef bint wanted = True
        if self.acks_due:
            self.acks_due -= 1
        if packet_type == PUBREC:
            message = NULL if self.received is None else self.received.find(packet_id)
            # After a PUBREL the client knows already; after another message under the identifier, it asks no more.
            wanted = message != NULL and message.generation == <uint8_t>(token >> 24)
            if wanted:
                message.confirmed = True
        if self.connection is None:
            return 0
        if wanted:
            append_ack(self.connection.output, packet_type, packet_id)
        if self.connection.input_ended:
            return self.connection.end_of_input()
        return self.transport.wake()

    cdef int on_pubrel(self, uint16_t packet_id) except -1:
        """The client knows that we have its message: free the packet identifier (4.3.3)."""
        if self.received is not None:
            self.received.discard(packet_id)
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
        if self.closed or (self.connection is None and self.clean) \
                or (delivery.correlated and delivery.service == REQUEST):  # the service of other protocols
            return False
        if endpoint is not None:
            if delivery.correlated:
                attachment = self.attachment_of(endpoint, delivery.sequence)
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
            self.send(topic, delivery.data.payload, qos)
        else:
            self.send_error(topic, qos, status, phrase_of(status, delivery.data.reason_phrase))
        return True

    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1:
        """Tell the client that the gateway refuses its message.

        A QoS 0 message without request ID is refused silently, because nobody waits for an answer. At QoS 1 and 2 the
        client is told even without a request ID, because PUBACK alone would mean that the message was accepted.
        """
        if (service == 0 and not has_request_id) or self.closed or topic.size + len(ERROR_SUFFIX) > TOPIC_SIZE_MAX:
            return 0
        full = topic.data[:topic.size] + ERROR_SUFFIX
        return self.send_error(slice_of(full), self.answer_qos(slice_of(full), <uint8_t>service), status, reason_phrase)

    cdef uint8_t answer_qos(self, Slice topic, uint8_t qos) except 0xFF:
        """Return the QoS of the answer to a message of this QoS: at most that of a subscription that matches it.

        An answer that matches no subscription keeps its QoS. Hot path.
        """
        cdef int granted
        if qos == 0 or self.subscriptions is None:
            return qos
        granted = self.subscriptions.qos_of(topic)
        return qos if granted == NO_MATCH else <uint8_t>min(<int>qos, granted)

    cdef int send_error(self, Slice topic, uint8_t qos, int status, str reason_phrase) except -1:
        """Publish the error payload of 1/KP."""
        cdef bytes payload = msgspec.json.encode({"statusCode": status, "reasonPhrase": reason_phrase})
        return self.send(topic, slice_of(payload), qos)

    cdef int send(self, Slice topic, Slice payload, uint8_t qos) except -1:
        """Publish to the client now, or when it is back and its window has room. Hot path."""
        if qos == 0:
            if self.connection is None:
                return self.counters.count("dropped", "client_offline")
            append_publish(self.connection.output, self.level, 0, topic, 0, payload)
            return self.transport.wake()
        if self.connection is not None and not self.queued and self.has_room(topic.size + payload.size):
            return self.send_in_flight(topic, payload, qos)
        if self.queued is None:
            self.queued = deque()
        if len(self.queued) >= self.limits.queued_messages \
                or self.queued_bytes + topic.size + payload.size > self.limits.queued_bytes \
                or (self.state == OFFLINE and not self.store.make_room(
                    self, topic.size + payload.size + MESSAGE_OVERHEAD)):
            return self.counters.count("dropped", "session_queue_full")
        self.queued_bytes += topic.size + payload.size
        self.queued.append((topic.data[:topic.size], payload.data[:payload.size], qos))
        return 0

    cdef bint has_room(self, Py_ssize_t size) noexcept:
        """Return whether another message, of `size` bytes, may be in flight.

        There is a limit of bytes too, because a client may never acknowledge; one message is always allowed.
        """
        return not self.in_flight or (
            self.unsent is None and len(self.in_flight) < self.limits.in_flight_window
            and self.in_flight_bytes + size <= self.limits.queued_bytes
        )

    cdef int send_in_flight(self, Slice topic, Slice payload, uint8_t qos) except -1:
        """Publish at QoS 1 or 2, and keep the packet until it is acknowledged. Hot path."""
        cdef Buffer output = self.connection.output
        cdef Py_ssize_t before = output.size
        cdef uint16_t packet_id
        if self.in_flight is None:
            self.in_flight = {}
        packet_id = self.next_packet_id()
        append_publish(output, self.level, <uint8_t>(qos << 1), topic, packet_id, payload)
        self.in_flight[packet_id] = output.data[before:output.size]
        self.in_flight_bytes += output.size - before
        self.sent_bytes += output.size - before
        return self.transport.wake()

    cdef uint16_t next_packet_id(self) except 0:
        """Return a free packet identifier. There is one: the window is much smaller than their number."""
        while True:
            self.last_packet_id = 1 if self.last_packet_id == 65535 else self.last_packet_id + 1
            if self.last_packet_id not in self.in_flight:
                return self.last_packet_id

    cdef int send_queued(self) except -1:
        """Send queued messages while the window has room."""
        while self.queued:
            topic, payload, qos = self.queued[0]
            if not self.has_room(len(topic) + len(payload)):
                break
            self.queued.popleft()
            self.queued_bytes -= len(topic) + len(payload)
            self.send_in_flight(slice_of(topic), slice_of(payload), qos)
        return 0

    cdef int on_puback(self, uint16_t packet_id) except -1:
        """The client has a QoS 1 message. An unknown packet identifier is an old one and is ignored."""
        # A packet identifier that waits for PUBCOMP is in flight as None: PUBACK does not end that.
        packet = None if self.in_flight is None else self.in_flight.get(packet_id)
        if packet is None:
            return 0
        del self.in_flight[packet_id]
        return self.acknowledged(packet_id, len(packet), 0)

    cdef int on_pubrec(self, uint16_t packet_id) except -1:
        """The client has a QoS 2 message: send PUBREL, which lets it forget the packet identifier (4.3.3)."""
        packet = None if self.in_flight is None else self.in_flight.get(packet_id)
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

    cdef uint8_t subscribe(self, Slice topic_filter, uint8_t qos) except? 0x7F:
        """Remember a topic filter. Return its SUBACK return code."""
        cdef bytes name
        if topic_filter.size > self.limits.topic_filter_size:
            self.counters.count("refused", "topic_filter_too_long")
            return SUBSCRIBE_FAILED
        name = topic_filter.data[:topic_filter.size]
        if self.subscriptions is None:
            self.subscriptions = Subscriptions()
        if name not in self.subscriptions.granted and len(self.subscriptions.granted) >= self.limits.subscriptions:
            self.counters.count("refused", "too_many_subscriptions")
            return SUBSCRIBE_FAILED
        self.subscriptions.add(name, qos)
        return qos

    cdef int unsubscribe(self, Slice topic_filter) except -1:
        """Forget a topic filter, if it is there."""
        return 0 if self.subscriptions is None else self.subscriptions.remove(topic_filter.data[:topic_filter.size])


cdef str phrase_of(int status, Slice reason_phrase):
    """Return the reason phrase of an extension, or the standard one of the status."""
    if reason_phrase.size:
        return reason_phrase.data[:min(reason_phrase.size, REASON_PHRASE_SIZE_MAX)].decode("utf-8", "replace")
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
