"""What an MQTT server remembers of one client: packet identifiers in flight both ways, subscriptions, queued messages.

A session outlives its connection when the client asked for that (CleanSession 0). Delivery does not depend on
subscriptions: an answer or push goes to the session that speaks for its endpoint, whether or not it subscribed; a
subscription only says at which QoS its client wants a push.

Source: MQTT 3.1.1 sections 3.1.2.4 (Clean Session), 4.3 (QoS), 4.4 (delivery retry); 1/KP, responses.
"""

from collections import OrderedDict, deque
from http import HTTPStatus

import msgspec

from kaa_gateway.kp.correlation cimport REQUEST
from kaa_gateway.kp.resource_path cimport CleanText, append_topic, is_clean_topic_again
from kaa_gateway.kp.sessions cimport Attachment, Session
from kaa_gateway.wire.mqtt cimport PUBCOMP, PUBREC, PUBREL, append_ack, append_publish

cdef enum:
    TOPIC_SIZE_MAX = 65535    # bytes
    SUBSCRIBE_FAILED = 0x80   # SUBACK return code
    DUP = 0x08                # flag of PUBLISH

cdef bytes STATUS_SUFFIX = b"/status"
cdef bytes ERROR_SUFFIX = b"/error"

# What extensions name is mostly what was named last, and was looked at then.
cdef CleanText last_version
cdef CleanText last_extension
cdef CleanText last_path


cdef Slice slice_of(bytes text):
    return Slice(<const uint8_t*>text, len(text))


cdef class MqttLimits:
    """Bounds of a session's state: messages in flight to the client; queued behind them, with their bytes; topic
    filters, with the bytes of one; and of the sessions kept for clients that are away: their number and seconds."""

    def __init__(
        self, in_flight_window, queued_messages, queued_bytes, subscriptions, topic_filter_size, persistent_sessions,
        session_expiry,
    ):
        self.in_flight_window = in_flight_window
        self.queued_messages = queued_messages
        self.queued_bytes = queued_bytes
        self.subscriptions = subscriptions
        self.topic_filter_size = topic_filter_size
        self.persistent_sessions = persistent_sessions
        self.session_expiry = session_expiry

    def set_sizes(self, queued_bytes, topic_filter_size):
        """Other bounds, for what comes from now on."""
        self.queued_bytes = queued_bytes
        self.topic_filter_size = topic_filter_size


cdef class MqttSession(Session):
    """One client's session, connected or not."""

    # ------------------------------------------------------------ connection

    cdef int bind(self, ProtocolCore connection, Transport transport) except -1:
        """The client is here, over this connection."""
        self.connection = connection
        self.transport = transport
        return 0

    cdef int unbind(self, double now) except -1:
        """The client's connection has ended, at loop time `now`."""
        self.connection = None
        self.transport = None
        self.offline_since = now
        return 0

    cdef int resume(self) except -1:
        return self.connection.resume() if self.connection is not None else 0

    cdef int end(self, str reason) except -1:
        if self.connection is not None:
            return self.connection.end(reason)
        self.counters.count("dropped", reason)
        return self.stored.discard(self)

    def describe(self):
        """What an operator may see of it."""
        return {
            **Session.describe(self),
            "clientId": self.client_id,
            "clean": bool(self.clean),
            "subscriptions": 0 if self.subscriptions is None else len(self.subscriptions),
            "inFlight": 0 if self.in_flight is None else len(self.in_flight),
            "queued": 0 if self.queued is None else len(self.queued),
        }

    def is_of(self, str client_id not None):
        """Whether its client calls itself so."""
        return self.client_id == client_id

    cdef int send_again(self) except -1:
        """What the client has not acknowledged, in its order, then what waited (4.4)."""
        if self.in_flight is not None:
            for packet_id, packet in self.in_flight.items():
                if packet is None:
                    append_ack(self.connection.output, PUBREL, packet_id)
                else:
                    again = bytes([packet[0] | DUP]) + packet[1:]
                    self.connection.output.append(<const uint8_t*><bytes>again, len(again))
            self.transport.wake()
        return self.send_queued()

    # ------------------------------------------------------------ from the client

    cdef int acknowledge(self, uint32_t token) except -1:
        """NATS has a PUBLISH of the client: token is its packet identifier and the packet type to answer. Hot path."""
        cdef uint16_t packet_id = <uint16_t>(token & 0xFFFF)
        cdef uint8_t packet_type = <uint8_t>(token >> 16)
        if packet_type == PUBREC:
            if self.received is None or packet_id not in self.received:
                return 0
            self.received[packet_id] = True
        if self.connection is None:
            return 0
        append_ack(self.connection.output, packet_type, packet_id)
        return self.transport.wake()

    cdef int on_pubrel(self, uint16_t packet_id) except -1:
        """The client knows that we have its message: its identifier is free again (4.3.3)."""
        if self.received is not None:
            self.received.pop(packet_id, None)
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
                or (delivery.correlated and delivery.service == REQUEST):  # no message of MQTT came in that way
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
        qos = <uint8_t>delivery.service if delivery.correlated else self.granted_qos(topic)
        if qos == 0 and self.connection is None:
            return False
        if success:
            self.send(topic, delivery.data.payload, qos)
        else:
            self.error(topic, qos, status, phrase_of(status, delivery.data.reason_phrase))
        return True

    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1:
        """Tell the client that the gateway could not do what it sent.

        Not for a QoS 0 message without request ID: nobody waits for an answer. At QoS 1 and 2 the client is told
        even without a request ID, because a bare PUBACK would say that the message had been taken.
        """
        if (service == 0 and not has_request_id) or self.closed or topic.size + len(ERROR_SUFFIX) > TOPIC_SIZE_MAX:
            return 0
        full = topic.data[:topic.size] + ERROR_SUFFIX
        return self.error(slice_of(full), <uint8_t>service, status, reason_phrase)

    cdef int error(self, Slice topic, uint8_t qos, int status, str reason_phrase) except -1:
        """The 1/KP error payload."""
        cdef bytes payload = msgspec.json.encode({"statusCode": status, "reasonPhrase": reason_phrase})
        return self.send(topic, slice_of(payload), qos)

    cdef int send(self, Slice topic, Slice payload, uint8_t qos) except -1:
        """Publish to the client now, or keep it until there is room or it is back. Hot path."""
        if qos == 0:
            if self.connection is None:
                return self.counters.count("dropped", "client_offline")
            append_publish(self.connection.output, self.level, 0, topic, 0, payload)
            return self.transport.wake()
        if self.connection is not None and not self.queued and self.has_room():
            return self.send_in_flight(topic, payload, qos)
        if self.queued is None:
            self.queued = deque()
        if len(self.queued) >= self.limits.queued_messages \
                or self.queued_bytes + topic.size + payload.size > self.limits.queued_bytes:
            return self.counters.count("dropped", "session_queue_full")
        self.queued_bytes += topic.size + payload.size
        self.queued.append((topic.data[:topic.size], payload.data[:payload.size], qos))
        return 0

    cdef bint has_room(self) noexcept:
        """Whether another message may be in flight: a bound of bytes too, because a client may never acknowledge."""
        return self.in_flight is None or (
            len(self.in_flight) < self.limits.in_flight_window and self.in_flight_bytes < self.limits.queued_bytes
        )

    cdef int send_in_flight(self, Slice topic, Slice payload, uint8_t qos) except -1:
        cdef Buffer output = self.connection.output
        cdef Py_ssize_t before = output.size
        cdef uint16_t packet_id
        if self.in_flight is None:
            self.in_flight = {}
        packet_id = self.next_packet_id()
        append_publish(output, self.level, <uint8_t>(qos << 1), topic, packet_id, payload)
        self.in_flight[packet_id] = output.data[before:output.size]
        self.in_flight_bytes += output.size - before
        return self.transport.wake()

    cdef uint16_t next_packet_id(self) except 0:
        """A free packet identifier; the window is much smaller than their number, so there is one."""
        while True:
            self.last_packet_id = 1 if self.last_packet_id == 65535 else self.last_packet_id + 1
            if self.last_packet_id not in self.in_flight:
                return self.last_packet_id

    cdef int send_queued(self) except -1:
        while self.queued and self.has_room():
            topic, payload, qos = self.queued.popleft()
            self.queued_bytes -= len(topic) + len(payload)
            self.send_in_flight(slice_of(topic), slice_of(payload), qos)
        return 0

    cdef int on_puback(self, uint16_t packet_id) except -1:
        """The client has a QoS 1 message. An identifier that is not in flight is an old one's, and harmless."""
        # One that waits for PUBCOMP is in flight as None: PUBACK does not end that.
        packet = None if self.in_flight is None else self.in_flight.get(packet_id)
        if packet is not None:
            self.in_flight_bytes -= len(packet)
            del self.in_flight[packet_id]
            return self.send_queued()
        return 0

    cdef int on_pubrec(self, uint16_t packet_id) except -1:
        """The client has a QoS 2 message; PUBREL lets it forget the identifier (4.3.3)."""
        packet = None if self.in_flight is None else self.in_flight.get(packet_id)
        if packet is not None:
            self.in_flight_bytes -= len(packet)
            self.in_flight[packet_id] = None
        append_ack(self.connection.output, PUBREL, packet_id)
        return self.transport.wake()

    cdef int on_pubcomp(self, uint16_t packet_id) except -1:
        """The client has forgotten the identifier."""
        if self.in_flight is not None and self.in_flight.get(packet_id, b"") is None:
            del self.in_flight[packet_id]
            return self.send_queued()
        return 0

    # ------------------------------------------------------------ subscriptions

    cdef uint8_t subscribe(self, Slice topic_filter, uint8_t qos) except? 0x7F:
        """Remember a topic filter: the SUBACK return code."""
        cdef bytes name
        if topic_filter.size > self.limits.topic_filter_size:
            self.counters.count("refused", "topic_filter_too_long")
            return SUBSCRIBE_FAILED
        name = topic_filter.data[:topic_filter.size]
        if self.subscriptions is None:
            self.subscriptions = {}
        if name not in self.subscriptions and len(self.subscriptions) >= self.limits.subscriptions:
            self.counters.count("refused", "too_many_subscriptions")
            return SUBSCRIBE_FAILED
        self.subscriptions[name] = qos
        self.highest_granted = max(self.highest_granted, qos)
        return qos

    cdef int unsubscribe(self, Slice topic_filter) except -1:
        """Forget a topic filter, if it was there."""
        if self.subscriptions is not None:
            self.subscriptions.pop(topic_filter.data[:topic_filter.size], None)
            self.highest_granted = max(self.subscriptions.values(), default=0)
        return 0

    cdef uint8_t granted_qos(self, Slice topic) noexcept:
        """The highest QoS among the subscriptions that match a topic; 0 if none does."""
        cdef uint8_t best = 0, qos
        cdef bytes name
        if self.highest_granted:  # of many it is 0
            for name, granted in self.subscriptions.items():
                qos = granted
                if qos > best and matches(slice_of(name), topic):
                    best = qos
        return best


cdef str phrase_of(int status, Slice reason_phrase):
    """The extension's reason phrase, or the standard one of the status."""
    if reason_phrase.size:
        return reason_phrase.data[:reason_phrase.size].decode("utf-8", "replace")
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


cdef bint matches(Slice topic_filter, Slice topic) noexcept nogil:
    """Whether a well-formed topic filter matches a topic name (4.7)."""
    cdef Py_ssize_t f = 0, t = 0
    if topic.size and topic.data[0] == c"$" and topic_filter.data[0] in (c"+", c"#"):
        return False
    while f < topic_filter.size:
        if topic_filter.data[f] == c"#":
            return True
        if topic_filter.data[f] == c"+":
            while t < topic.size and topic.data[t] != c"/":
                t += 1
            f += 1
        else:
            while f < topic_filter.size and topic_filter.data[f] != c"/":
                if t >= topic.size or topic.data[t] != topic_filter.data[f]:
                    return False
                f += 1
                t += 1
            if t < topic.size and topic.data[t] != c"/":
                return False
        if f >= topic_filter.size:
            break
        # The filter has another level.
        if t >= topic.size:
            # "a/#" matches "a" as well.
            return topic_filter.size - f == 2 and topic_filter.data[f + 1] == c"#"
        f += 1
        t += 1
        if f == topic_filter.size:
            # An empty last level of the filter matches an empty last level of the topic.
            return t == topic.size
    return t >= topic.size


def filter_matches(bytes topic_filter not None, bytes topic not None):
    """Whether a well-formed topic filter matches a topic name."""
    return bool(matches(slice_of(topic_filter), slice_of(topic)))


cdef class MqttSessions:
    """The sessions of a worker that a client may come back to, or may be taken over, by principal and client ID.

    Anonymous clients with clean sessions are not among them: whole fleets share one client identifier.
    """

    def __init__(self, Sessions sessions, MqttLimits limits):
        self.sessions = sessions
        self.limits = limits
        self.by_client = {}
        self.offline = OrderedDict()

    def offline_count(self):
        """Sessions kept for clients that are away."""
        return len(self.offline)

    cdef MqttSession find(self, str principal, str client_id):
        return self.by_client.get((principal, client_id))

    cdef int add(self, MqttSession session) except -1:
        self.by_client[session.principal, session.client_id] = session
        return 0

    cdef int discard(self, MqttSession session) except -1:
        """End a session and all that it remembers."""
        key = (session.principal, session.client_id)
        if self.by_client.get(key) is session:
            del self.by_client[key]
        self.offline.pop(session, None)
        return self.sessions.close(session)

    cdef int keep_offline(self, MqttSession session) except -1:
        """Its client is away: keep the session, in place of the one whose client has been away longest if need be."""
        if self.limits.persistent_sessions == 0:
            return self.discard(session)
        if len(self.offline) >= self.limits.persistent_sessions:
            session.counters.count("dropped", "session_evicted")
            self.discard(<MqttSession>self.offline.popitem(last=False)[0])
        self.offline[session] = None
        return 0

    cdef int back_online(self, MqttSession session) except -1:
        self.offline.pop(session, None)
        return 0

    def expire(self, double now):
        """End the sessions whose clients have been away for too long at loop time `now`."""
        cdef MqttSession session
        expired = []
        for session in self.offline:
            if now - session.offline_since < self.limits.session_expiry:
                break
            expired.append(session)
        for session in expired:
            session.counters.count("dropped", "session_expired")
            self.discard(session)
