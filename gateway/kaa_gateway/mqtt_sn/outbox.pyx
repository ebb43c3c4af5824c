"""What is sent to one MQTT-SN client: one message at a time, in order, until the client has acknowledged it.

A PUBLISH whose topic ID the client does not know waits for REGISTER and REGACK. Messages wait while the client sleeps.

Addresses can be forged, so one that is not proved is sent at most three times the bytes that have come from it, and
CREDIT bytes more, for a REGISTER. It is proved by a REGACK, whose message ID was drawn at random.

What does not live here: which messages there are (kaa_gateway.mqtt.session), and the state of the client (peer.pyx).

Source: MQTT-SN 1.2, sections 6.10, 6.13 and 6.14; RFC 9000 section 8.1 (amplification).
"""

from collections import deque
from random import SystemRandom

from kaa_gateway.wire.buffer cimport slice_of, to_bytes
from kaa_gateway.wire.mqtt_sn cimport (
    DUP, NORMAL, PUBREL, RC_ACCEPTED, RC_CONGESTION, RC_INVALID_TOPIC_ID, append_acknowledgement,
    append_byte, append_empty, append_id, append_publish, append_register, qos_of,
)

cdef enum:
    AMPLIFICATION = 3         # bytes that may be sent for each byte of an address that is not proved
    CREDIT = 256              # bytes that may be sent to it beside: for the REGISTER which proves it
    SCRATCH_KEEP = 4096       # bytes
    PUBLISH_OVERHEAD = 9      # bytes of a PUBLISH beside its payload, at most
    REGISTER_OVERHEAD = 8     # the same of a REGISTER beside its topic

cdef object random = SystemRandom()


cdef class OutgoingMessage:
    """A message that waits for its turn, or for its acknowledgement."""


cdef class Outbox:
    """The way to one client."""

    def __init__(
        self, UdpSocket socket not None, Counters counters not None, MqttSnSettings settings not None,
        ClientTopics topics, Buffer scratch not None,
    ):
        self.socket = socket
        self.counters = counters
        self.settings = settings
        self.topics = topics
        self.scratch = scratch
        self.credit = CREDIT

    # ------------------------------------------------------------ the address

    cdef int move(self, const Address* address, bytes forwarding) except -1:
        """Send to another address, which is not proved yet."""
        self.address = address[0]
        self.forwarding = forwarding
        self.proved = False
        self.credit = CREDIT
        return 0

    cdef int received(self, Py_ssize_t size) noexcept:
        """Note that so many bytes have come from the address. Hot path."""
        if not self.proved:
            self.credit += AMPLIFICATION * <uint64_t>size
        return 0

    cdef bint transmit(self) except -1:
        """Send the message in `scratch`. Return False if the address may not be sent so much. Hot path."""
        cdef Py_ssize_t size = self.scratch.size
        if self.forwarding is not None:
            size += len(self.forwarding)
        if not self.proved:
            if self.credit < <uint64_t>size:
                self.scratch.clear(SCRATCH_KEEP)
                return False
            self.credit -= <uint64_t>size
        if self.forwarding is not None:
            whole = self.forwarding + self.scratch.copy()
            self.socket.send(&self.address, <const uint8_t*>(<bytes>whole), len(<bytes>whole))
        else:
            self.socket.send(&self.address, self.scratch.data, size)
        self.scratch.clear(SCRATCH_KEEP)
        return True

    cdef int send_empty(self, uint8_t type) except -1:
        """Send a message without a variable part."""
        append_empty(self.scratch, type)
        self.transmit()
        return 0

    cdef int send_byte(self, uint8_t type, uint8_t value) except -1:
        """Send CONNACK, GWINFO, WILLTOPICRESP or WILLMSGRESP."""
        append_byte(self.scratch, type, value)
        self.transmit()
        return 0

    cdef int send_id(self, uint8_t type, uint16_t message_id) except -1:
        """Send PUBREC, PUBCOMP or UNSUBACK."""
        append_id(self.scratch, type, message_id)
        self.transmit()
        return 0

    cdef int send_acknowledgement(self, uint8_t type, uint16_t topic_id, uint16_t message_id, uint8_t code) except -1:
        """Send REGACK or PUBACK. Hot path."""
        append_acknowledgement(self.scratch, type, topic_id, message_id, code)
        self.transmit()
        return 0

    # ------------------------------------------------------------ messages

    cdef int publish(self, uint8_t flags, uint16_t message_id, Slice topic, Slice payload, double now) except -1:
        """Send a message, or let it wait behind others. At QoS 0, it is dropped if too many wait. Hot path."""
        cdef OutgoingMessage message
        cdef bint waits = self.is_busy()
        if waits and qos_of(flags) == 0 and (
                self.waiting_messages >= self.settings.buffered_messages
                or self.waiting_bytes + payload.size > self.settings.buffered_bytes):
            return self.counters.count("dropped", "mqtt_sn_buffer_full")
        message = OutgoingMessage()
        message.flags = flags
        message.message_id = message_id
        message.topic = to_bytes(topic)
        message.payload = payload.data[:payload.size] if payload.size else b""
        return self.put(message) if waits else self.begin(message, now)

    cdef int release(self, uint16_t message_id, double now) except -1:
        """Send the PUBREL of a message."""
        cdef OutgoingMessage message = OutgoingMessage()
        message.message_id = message_id
        if self.awaited == AWAIT_PUBREC and self.awaited_id == message_id and not self.held:
            self.awaited = NO_ANSWER
            return self.begin(message, now)
        return self.put(message) if self.is_busy() else self.begin(message, now)

    cdef int put(self, OutgoingMessage message) except -1:
        """Let a message wait. Those of QoS 1 and 2 are bounded by the session."""
        if self.waiting is None:
            self.waiting = deque()
        self.waiting.append(message)
        if message.topic is not None and qos_of(message.flags) == 0:
            self.waiting_messages += 1
            self.waiting_bytes += len(message.payload)
        return 0

    cdef bint is_busy(self) noexcept:
        """Return whether a message must wait: for others before it, for an answer, or for the client to wake up."""
        return self.held or self.awaited != NO_ANSWER or (self.waiting is not None and len(self.waiting) > 0)

    cdef bint is_idle(self) noexcept:
        """Return whether nothing waits, to be sent or for an acknowledgement."""
        return self.awaited == NO_ANSWER and not self.waiting

    cdef int send_waiting(self, double now) except -1:
        """Send messages that wait, up to the first that the client must acknowledge."""
        cdef OutgoingMessage message
        while not self.held and self.awaited == NO_ANSWER and self.waiting:
            message = self.waiting.popleft()
            if message.topic is not None and qos_of(message.flags) == 0:
                self.waiting_messages -= 1
                self.waiting_bytes -= len(message.payload)
            self.begin(message, now)
        return 0

    cdef int begin(self, OutgoingMessage message, double now) except -1:
        """Send a message, or first its REGISTER. Hot path."""
        cdef uint8_t topic_type
        cdef uint8_t qos = qos_of(message.flags)
        cdef int topic_id
        cdef Py_ssize_t size
        self.current = message
        if message.topic is None:
            append_id(self.scratch, PUBREL, message.message_id)
            self.transmit()
            return self.await_answer(AWAIT_PUBCOMP, message.message_id, now)
        size = min(self.settings.message_size, self.socket.message_size_max(&self.address))
        if len(message.payload) + PUBLISH_OVERHEAD > size:
            return self.drop(message, "mqtt_sn_message_too_large")
        topic_id = self.topics.id_of(message.topic, &topic_type)
        if topic_type == NORMAL and not self.topics.is_told(<uint16_t>topic_id):
            if len(message.topic) + REGISTER_OVERHEAD > size:
                return self.drop(message, "mqtt_sn_message_too_large")
            topic_id = self.topics.register(message.topic)
            if topic_id == 0:
                return self.drop(message, self.topics.refusal())
            return self.begin_register(message, <uint16_t>topic_id, now)
        size = len(message.payload) + PUBLISH_OVERHEAD
        if not self.proved and self.credit < <uint64_t>(size + CREDIT):
            # The answer to REGISTER proves the address.
            return self.begin_register(message, <uint16_t>topic_id, now)
        append_publish(
            self.scratch, message.flags | topic_type, <uint16_t>topic_id, message.message_id, slice_of(message.payload)
        )
        self.transmit()
        if qos == 0:
            self.current = None
            return 0
        message.flags |= DUP
        return self.await_answer(AWAIT_PUBACK if qos == 1 else AWAIT_PUBREC, message.message_id, now)

    cdef int begin_register(self, OutgoingMessage message, uint16_t topic_id, double now) except -1:
        """Tell the client the topic ID of a message, which waits for the answer."""
        cdef uint16_t message_id = random.randrange(1, 32768)  # positive, for clients that take it as signed
        append_register(self.scratch, topic_id, message_id, slice_of(message.topic))
        if not self.transmit():
            return self.drop(message, "mqtt_sn_unproved_address")
        return self.await_answer(AWAIT_REGACK, message_id, now)

    cdef int await_answer(self, Awaited awaited, uint16_t message_id, double now) except -1:
        self.awaited = awaited
        self.awaited_id = message_id
        self.attempts = 1
        self.retry_at = now + self.settings.retry_timeout
        return 0

    cdef int drop(self, OutgoingMessage message, str reason) except -1:
        """Give up a message. The session is told later: see `dropped`."""
        self.counters.count("dropped", reason)
        self.current = None
        self.awaited = NO_ANSWER
        if qos_of(message.flags):
            if self.dropped is None:
                self.dropped = []
            self.dropped.append(message)
        return 0

    cdef int hold(self) except -1:
        """Let all messages wait, the one that is not acknowledged first: the client goes to sleep."""
        self.held = True
        if self.awaited == NO_ANSWER:
            return 0
        self.awaited = NO_ANSWER
        if self.waiting is None:
            self.waiting = deque()
        self.waiting.appendleft(self.current)
        if self.current.topic is not None and qos_of(self.current.flags) == 0:
            self.waiting_messages += 1
            self.waiting_bytes += len(self.current.payload)
        self.current = None
        return 0

    # ------------------------------------------------------------ answers

    cdef int on_regack(self, uint16_t topic_id, uint16_t message_id, uint8_t return_code, double now) except -1:
        """Send the message whose topic ID the client knows now, or drop it if the client does not want the topic."""
        cdef uint8_t topic_type
        if self.awaited != AWAIT_REGACK or self.awaited_id != message_id:
            return 0
        self.proved = True
        if return_code == RC_CONGESTION:
            return 0  # REGISTER is sent again later
        self.awaited = NO_ANSWER
        if return_code != RC_ACCEPTED:
            self.drop(self.current, "mqtt_sn_refused_by_client")
        else:
            topic_id = <uint16_t>self.topics.id_of(self.current.topic, &topic_type)
            if topic_type == NORMAL:
                self.topics.tell(topic_id)
            self.begin(self.current, now)
        return self.send_waiting(now)

    cdef bint on_puback(self, uint16_t topic_id, uint16_t message_id, uint8_t return_code, double now) except -1:
        """Return whether the client has a QoS 1 message. It may refuse one of any QoS: see ReturnCode."""
        cdef OutgoingMessage message = self.current
        if return_code == RC_INVALID_TOPIC_ID:
            self.topics.untell(topic_id)
        if self.awaited not in (AWAIT_PUBACK, AWAIT_PUBREC) or self.awaited_id != message_id:
            return False
        if return_code == RC_CONGESTION:
            return False  # it is sent again later
        if return_code == RC_INVALID_TOPIC_ID and not message.corrected:
            message.corrected = True
            self.awaited = NO_ANSWER
            self.begin(message, now)
            return False
        if return_code != RC_ACCEPTED:
            self.drop(message, "mqtt_sn_refused_by_client")
            return False
        if self.awaited == AWAIT_PUBREC:
            return False
        self.awaited = NO_ANSWER
        self.current = None
        return True

    cdef bint on_pubrec(self, uint16_t message_id) except -1:
        """Return whether the client has a QoS 2 message, whose PUBREL is now to be sent."""
        if self.awaited == AWAIT_PUBCOMP and self.awaited_id == message_id:
            append_id(self.scratch, PUBREL, message_id)
            self.transmit()
        return self.awaited == AWAIT_PUBREC and self.awaited_id == message_id

    cdef int on_pubcomp(self, uint16_t message_id, double now) except -1:
        """The client has a QoS 2 message for good."""
        if self.awaited == AWAIT_PUBCOMP and self.awaited_id == message_id:
            self.awaited = NO_ANSWER
            self.current = None
        return 0

    cdef bint retransmit(self, double now) except -1:
        """Send again what the client has not answered in time. Return False if it never answers."""
        cdef Awaited awaited = self.awaited
        cdef int attempts = self.attempts
        cdef uint8_t topic_type
        cdef int topic_id
        if awaited == NO_ANSWER or now < self.retry_at:
            return True
        if attempts > self.settings.retries:
            return False
        if awaited == AWAIT_REGACK:
            topic_id = self.topics.id_of(self.current.topic, &topic_type)
            append_register(self.scratch, <uint16_t>topic_id, self.awaited_id, slice_of(self.current.topic))
        elif awaited == AWAIT_PUBCOMP:
            append_id(self.scratch, PUBREL, self.awaited_id)
        else:
            topic_id = self.topics.id_of(self.current.topic, &topic_type)
            append_publish(
                self.scratch, self.current.flags | topic_type, <uint16_t>topic_id, self.awaited_id,
                slice_of(self.current.payload),
            )
        self.transmit()
        self.attempts = attempts + 1
        self.retry_at = now + self.settings.retry_timeout
        return True
