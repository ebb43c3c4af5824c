"""The session of a plug-in's device: it stands between the protocol object, which is plain Python, and 1/KP.

The protocol object acts through the methods of `DeviceLink`, and is called with what comes. A fault in it ends this
session and no other. What the uplink does not take is held, in order, and the device is not read meanwhile.

What does not live here: bytes and datagrams (stream.pyx, datagrams.pyx).

Source: docs/protocols.md.
"""

from collections import deque

from kaa_gateway.kp.addressee cimport Addressee, find_addressee
from kaa_gateway.kp.correlation cimport AT_LEAST_ONCE, AT_MOST_ONCE, REQUEST, SEQUENCE_MASK
from kaa_gateway.kp.session cimport Delivery, Endpoint
from kaa_gateway.kp.uplink cimport BUSY, FORWARDED, IGNORED, Message
from kaa_gateway.wire.buffer cimport Slice, slice_of, to_bytes

from kaa_gateway.plugins.values import Answer, Push, Refusal, Violation

cdef enum:
    NOT_FOUND = 404
    TOO_MANY_REQUESTS = 429
    SERVICE_UNAVAILABLE = 503
    UNCONFIRMED_MAX = 1024         # messages with a reference that NATS has not confirmed; then the device is not read
    REQUESTS_MAX = 256             # requests of a device that wait for an answer
    HELD_MAX = 1024                # messages that the uplink has not taken
    HELD_BYTES_MAX = 1024 * 1024   # of these
    TOPICS_MAX = 64                # topics that are remembered
    TOKEN_SIZE_MAX = 255           # characters

cdef object MISSING = object()


cdef class PluginSession(Session):
    """A device of a plug-in, as 1/KP sees it; and the `DeviceLink` of its protocol object."""

    def __init__(self, PluginServer server not None):
        self.server = server
        self.counters = server.counters
        self.protocol = server.protocol
        self.app_version = server.app_version
        self.topics = {}
        self.references = {}
        self.requests = {}

    cdef int open(self) except -1:
        """Open the session, and make its protocol object."""
        self.server.sessions.open(self)
        self.server.sessions.set_online(self, True)
        return self.start()

    cdef int start(self) except -1:
        try:
            self.device = self.server.protocol_class(self, self.server.options)
        except Exception as error:
            return self.fault(error)
        return self.tell("opened", ())

    # ------------------------------------------------------------ calls of the plug-in

    cdef object call(self, method, tuple arguments):
        """Call a method of the plug-in. What it raises ends the session; None then."""
        try:
            return method(*arguments)
        except Exception as error:
            self.on_error(error)
        return None

    cdef int on_error(self, error) except -1:
        """End the session for what the plug-in has raised: a Violation of the device, or a fault of its own."""
        cdef str counted = None
        if isinstance(error, Violation):
            counted = self.server.counted_reason(error.reason)
        return self.fault(error) if counted is None else self.hang_up(counted)

    cdef int tell(self, str name, tuple arguments) except -1:
        """Tell the plug-in an event, unless the session has ended."""
        if not self.ended:
            self.call(getattr(self.device, name), arguments)
        return 0

    cdef int tell_later(self, str name, tuple arguments) except -1:
        """Tell the plug-in an event at the end of this tick: it is within another call, or must not overtake one."""
        if self.deferred is None:
            self.deferred = []
            self.server.loop.call_soon(self.run_deferred)
        self.deferred.append((name, arguments))
        return 0

    def run_deferred(self):
        """Tell what was put off."""
        deferred, self.deferred = self.deferred, None
        if deferred is None:
            return  # the session has ended meanwhile
        for name, arguments in deferred:
            self.tell(name, arguments)
        self.unblock()

    cdef int receive_message(self, bytes message) except -1:
        """Hand a message to the plug-in. Hot path."""
        try:
            self.device.receive(message)
        except Exception as error:
            self.on_error(error)
        return 0

    cdef int fault(self, error) except -1:
        """End the session for a fault of the plug-in."""
        if self.ended:
            return 0
        self.counters.count("closed", "plugin_fault")
        self.server.log_fault(error)
        self.ended = True
        return self.disconnect_device()

    cdef int hang_up(self, str reason) except -1:
        """End the session; `reason` is counted."""
        if self.ended:
            return 0
        self.counters.count("closed", reason)
        self.ended = True
        return self.disconnect_device()

    cdef int finish(self) except -1:
        """Release everything: the connection is gone."""
        cdef uint32_t number
        if self.closed:
            return 0
        self.ended = True
        for number in self.requests:
            self.server.pending.forget(self.key, number)
        self.requests = {}
        self.references = {}
        self.held = self.deferred = None
        self.held_bytes = 0
        self.server.sessions.close(self)
        device, self.device = self.device, None
        if device is not None:
            try:
                device.closed()
            except Exception as error:
                self.server.log_fault(error)
        return 0

    # ------------------------------------------------------------ back-pressure

    cdef bint is_busy(self) noexcept:
        """Return whether the plug-in will still be told of something that it has published."""
        return len(self.references) > 0 or len(self.requests) > 0 or self.held is not None or self.deferred is not None

    cdef int unblock(self) except -1:
        """Read the device again if nothing is against it. Hot path."""
        if self.closed:
            return 0
        if self.blocked and self.held is None and len(self.references) <= UNCONFIRMED_MAX // 2:
            self.blocked = False
            return self.go_on()
        return self.go_on() if self.input_ended else 0

    cdef int block(self) except -1:
        """Do not read the device for now."""
        if not self.blocked:
            self.blocked = True
            self.pause()
        return 0

    cdef int resume(self) except -1:
        """Offer again what the uplink did not take."""
        cdef uint32_t number
        while self.held:
            topic, payload, service, number = self.held[0]
            if self.forward(topic, payload, <Service><int>service, number) == BUSY:
                return 0
            if self.held is None:
                return 0
            self.held.popleft()
            self.held_bytes -= len(topic) + len(payload)
        self.held = None
        return self.unblock()

    # ------------------------------------------------------------ DeviceLink

    def publish(self, str path not None, bytes payload not None, reference, str token):
        """Publish a message; see DeviceProtocol. Hot path."""
        cdef uint32_t number = 0
        if self.ended:
            return
        topic = self.topic_of(path, token)
        if reference is None:
            self.offer(topic, payload, AT_MOST_ONCE, 0)
            return
        number = self.next_number()
        self.references[number] = reference
        self.offer(topic, payload, AT_LEAST_ONCE, number)
        if len(self.references) >= UNCONFIRMED_MAX:
            self.block()

    def request(self, str path not None, bytes payload not None, reference, str token):
        """Publish a request; see DeviceProtocol."""
        cdef uint32_t number
        if self.ended:
            return
        topic = self.topic_of(path, token)
        number = self.next_number()
        if len(self.requests) >= REQUESTS_MAX:
            self.counters.count("refused", "plugin_outstanding_requests")
            self.tell_later("answered", (reference, Answer(TOO_MANY_REQUESTS, "Too many requests", b"")))
            return
        self.requests[number] = reference
        if not self.server.uplink.link.ready:
            self.counters.count("refused", "nats_away")
            self.refuse(REQUEST, number, SERVICE_UNAVAILABLE, "NATS is not connected")
        elif not self.server.pending.add(self, number, self.server.loop.time()):
            self.counters.count("refused", "too_many_pending_requests")
            self.refuse(REQUEST, number, SERVICE_UNAVAILABLE, "Too many requests wait for an answer")
        else:
            self.offer(topic, payload, REQUEST, number)

    def identify(self, str token not None, str app_version):
        """Ask for the endpoint of a token; see DeviceProtocol."""
        if self.ended:
            return
        if app_version is not None:
            self.app_version = app_version.encode()
        self.token = token.encode("utf-8", "replace")
        self.topics = {}
        if not token or len(token) > TOKEN_SIZE_MAX or "/" in token:
            self.tell_later("rejected", (token, Refusal(NOT_FOUND, "Malformed token")))
            return
        name = b"kp1/%b/+/%b" % (self.app_version, self.token)
        self.server.uplink.identify(self, slice_of(name))

    def send(self, bytes data not None):
        """Send bytes to the device. Hot path."""
        if not self.ended:
            self.write(data)

    def close(self, str reason):
        """End the connection; see DeviceProtocol."""
        cdef str counted
        if reason is None:
            self.hang_up("plugin_closed")
            return
        counted = self.server.counted_reason(reason)
        if counted is None:
            raise ValueError(f"{reason!r} is not in the `reasons` of the protocol")
        self.hang_up(counted)

    def set_timer(self, seconds):
        """Set or clear the timer."""
        self.timer_at = 0 if seconds is None else self.server.loop.time() + max(float(seconds), 0.0)
        if self.timer_at:
            self.on_timer_set()

    cdef int expire_timer(self, double now) except -1:
        """Tell the plug-in if its timer is due."""
        if self.timer_at and self.timer_at <= now:
            self.timer_at = 0
            self.tell("timer", ())
        return 0

    # ------------------------------------------------------------ up

    cdef bytes topic_of(self, str path, str token):
        """Return the topic of a path of the plug-in. Hot path."""
        cdef bytes topic
        if token is not None:
            return self.make_topic(path, token.encode("utf-8", "replace"))
        topic = <bytes>self.topics.get(path)
        if topic is None:
            topic = self.make_topic(path, self.token)
            if len(self.topics) >= TOPICS_MAX:
                self.topics = {}
            self.topics[path] = topic
        return topic

    cdef bytes make_topic(self, str path, bytes token):
        """Return the topic of a path, with the application version, and with the token if the extension takes one."""
        cdef bytes extension, slash, rest, text = path.encode("utf-8", "replace")
        if text.startswith(b"kp1/"):
            return text
        extension, slash, rest = text.partition(b"/")
        if self.server.uplink.router.endpoint_aware.get(extension, True):
            if token is None:
                raise ValueError(f"publish to {path!r} before identify: {extension.decode()!r} needs a token")
            extension = extension + b"/" + token
        return b"kp1/" + self.app_version + b"/" + extension + slash + rest

    cdef uint32_t next_number(self) noexcept:
        """Return the number of the next message: never 0, and again only after all others."""
        self.last_number = 1 if self.last_number >= SEQUENCE_MASK else self.last_number + 1
        return self.last_number

    cdef int offer(self, bytes topic, bytes payload, Service service, uint32_t number) except -1:
        """Give a message to the uplink, or hold it behind those that the uplink has not taken. Hot path."""
        if self.held is None and self.forward(topic, payload, service, number) != BUSY:
            return 0
        if self.held is None:
            self.held = deque()
            self.block()
        if len(self.held) >= HELD_MAX or self.held_bytes + len(topic) + len(payload) > HELD_BYTES_MAX:
            self.counters.count("dropped", "plugin_held_messages")
            return self.refuse(service, number, SERVICE_UNAVAILABLE, "Too many messages wait to be forwarded")
        self.held.append((topic, payload, <int>service, number))
        self.held_bytes += len(topic) + len(payload)
        return 0

    cdef Outcome forward(self, bytes topic, bytes payload, Service service, uint32_t number) except *:
        """Give a message to the uplink. Hot path."""
        cdef Message message
        cdef Outcome outcome
        message.topic = slice_of(topic)
        message.payload = slice_of(payload)
        message.service = service
        message.token = number if service == AT_LEAST_ONCE else 0
        message.sequence = number
        message.timeout = <long long>(1000 * self.server.pending.timeout) if service == REQUEST else 0
        message.unanswered = False
        message.literal = True
        message.needs_request_id = service == REQUEST
        message.traceparent = Slice(NULL, 0)
        outcome = self.server.uplink.publish(self, &message)
        if outcome == FORWARDED:
            self.admit()
        elif outcome == IGNORED:
            self.refuse(service, number, NOT_FOUND, "Resource path must be kp1/<application version>/...")
        return outcome

    cdef int refuse(self, Service service, uint32_t number, int status, str phrase) except -1:
        """Tell the plug-in at the end of this tick that a message of it goes nowhere."""
        if service == REQUEST:
            self.server.pending.forget(self.key, number)
            reference = self.requests.pop(number, MISSING)
            if reference is not MISSING:
                self.tell_later("answered", (reference, Answer(status, phrase, b"")))
        elif service == AT_LEAST_ONCE:
            reference = self.references.pop(number, MISSING)
            if reference is not MISSING:
                self.tell_later("refused", (reference, Refusal(status, phrase)))
        return 0

    # ------------------------------------------------------------ down

    cdef int acknowledge(self, uint32_t token) except -1:
        """Tell the plug-in that NATS has its message. Hot path."""
        reference = self.references.pop(token, MISSING)
        if reference is MISSING or self.ended:
            return 0
        self.tell("confirmed", (reference,))
        return self.unblock()

    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1:
        return self.refuse(service, sequence, status, reason_phrase)

    cdef int on_identified(self, tuple key, refusal) except -1:
        cdef str token
        if self.ended:
            return 0
        token = (<bytes>(self.token if key is None else key[1])).decode("utf-8", "replace")
        if refusal is not None:
            return self.tell_later("rejected", (token, Refusal(refusal.status, refusal.detail or refusal.reason)))
        self.admit()
        return self.tell_later("identified", (token,))

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Hand an answer or a push to the plug-in; return False if it takes none. Hot path."""
        cdef Addressee addressee
        if self.ended:
            return False
        payload = b"" if delivery.data.payload.data == NULL else to_bytes(delivery.data.payload)
        phrase = text_of(delivery.data.reason_phrase)
        if delivery.correlated and delivery.service == REQUEST:
            reference = self.requests.pop(delivery.sequence, MISSING)
            if reference is MISSING:
                return False
            self.server.pending.answered(self.key, delivery.sequence)
            self.tell("answered", (reference, Answer(delivery.data.status_code, phrase, payload)))
            self.unblock()
            return True
        if not find_addressee(self, delivery, endpoint, None, &addressee):
            return False
        push = Push(
            text_of(delivery.data.extension_instance_name), text_of(delivery.data.resource_path),
            text_of(addressee.token), delivery.data.status_code, phrase, payload,
        )
        taken = self.call(self.device.pushed, (push,))
        if taken is not False and not (taken is None and self.ended):
            return True
        self.counters.count("dropped", "plugin_push_not_taken")
        return False

    cdef int end(self, str reason) except -1:
        """End the session for a reason of the gateway's."""
        return self.hang_up(reason)

    # ------------------------------------------------------------ the transport's

    cdef int write(self, bytes data) except -1:
        """Send bytes to the device."""
        return 0

    cdef int disconnect_device(self) except -1:
        """Close the connection after its output; `finish` follows."""
        return 0

    cdef int admit(self) except -1:
        """Note that the device is past the half-open state."""
        return 0

    cdef int pause(self) except -1:
        """Stop reading the device."""
        return 0

    cdef int go_on(self) except -1:
        """Read on, with what was kept first; or close, if the device has closed its side and nothing is due to it."""
        return 0

    cdef int on_timer_set(self) except -1:
        """Note that the session has a timer."""
        return 0


cdef str text_of(Slice text):
    """Return borrowed text; an absent one is empty."""
    return "" if text.data == NULL else text.data[:text.size].decode("utf-8", "replace")
