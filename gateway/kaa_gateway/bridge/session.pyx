"""The session of an endpoint whose device is on another broker.

Its messages come from that broker, one by one; what is for the device goes back there, as topic and payload. Messages
with a reference are at QoS 1: `bridge.confirmed(reference)` is called when NATS has them, or when they are refused.

Source: 1/KP; 4/ESP.
"""

import json

from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.addressee cimport Addressee, find_addressee
from kaa_gateway.kp.correlation cimport AT_LEAST_ONCE, AT_MOST_ONCE, SEQUENCE_MASK, Service
from kaa_gateway.kp.resource_path cimport append_topic, is_clean
from kaa_gateway.kp.router cimport Router
from kaa_gateway.kp.session cimport Delivery, Endpoint
from kaa_gateway.kp.uplink cimport BUSY, Message, Outcome
from kaa_gateway.wire.buffer cimport Slice, slice_of, to_bytes

from http import HTTPStatus

cdef object MISSING = object()


cdef class BridgedEndpoint(Session):
    """An endpoint of a bridge; or the messages of all devices that have no endpoint, if `endpoint_key` is None."""

    def __init__(
        self, Uplink uplink not None, Sessions sessions not None, Counters counters not None, str protocol not None,
        bridge, endpoint_key,
    ):
        self.uplink = uplink
        self.sessions = sessions
        self.counters = counters
        self.protocol = counters.add_protocol(protocol)
        self.bridge = bridge
        self.endpoint_key = endpoint_key
        self.connectionless = True
        self.owned = True
        self.references = {}
        self.scratch = Buffer()
        sessions.open(self)

    def describe(self):
        """Return what an operator may see of it."""
        return {**Session.describe(self), "pushes": "delivered here" if self.owned else "delivered by another bridge"}

    def publish(self, bytes topic not None, bytes payload not None, long long timeout, reference):
        """Publish a message; return False if it must be offered again after `bridge.resumed()`.

        `timeout` is in ms, 0 is none. A message without reference is at QoS 0.
        """
        cdef Message message
        cdef Outcome outcome
        cdef uint32_t number = 0
        if reference is not None:
            self.last_number = 1 if self.last_number >= SEQUENCE_MASK else self.last_number + 1
            number = self.last_number
            self.references[number] = reference
        message.topic = slice_of(topic)
        message.payload = slice_of(payload)
        message.service = AT_MOST_ONCE if reference is None else AT_LEAST_ONCE
        message.token = number
        message.sequence = number
        message.timeout = timeout
        message.unanswered = False
        message.literal = False
        message.needs_request_id = False
        message.traceparent = Slice(NULL, 0)
        outcome = self.uplink.publish(self, &message)
        if outcome == BUSY:
            self.references.pop(number, None)
            return False
        return True

    def close(self):
        """End the session. What NATS confirms later is forgotten."""
        self.sessions.close(self)

    cdef int acknowledge(self, uint32_t token) except -1:
        """Tell the bridge that NATS has a message, or that it was refused."""
        reference = self.references.pop(token, MISSING)
        if reference is not MISSING:
            self.bridge.confirmed(reference)
        return 0

    cdef int resume(self) except -1:
        self.bridge.resumed()
        return 0

    cdef int end(self, str reason) except -1:
        """Forget the endpoint, for a reason that is a code. Its next message opens a new session."""
        if not self.closed:
            self.counters.count("closed", reason)
            self.bridge.ended(self)
            self.sessions.close(self)
        return 0

    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1:
        """Publish the gateway's own refusal as 1/KP says, if somebody waits for it."""
        if has_request_id or service != AT_MOST_ONCE:
            self.bridge.send(to_bytes(topic) + b"/error", error_payload(status, reason_phrase))
        return 0

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Publish an ExtensionData to `.../status` or `.../error`."""
        cdef Addressee addressee
        cdef int status = delivery.data.status_code
        cdef bint success = 200 <= status < 300
        if self.closed or not (self.owned or delivery.correlated):
            return False  # another bridge delivers it
        if not find_addressee(self, delivery, endpoint, None, &addressee):
            return False
        if addressee.app_version.data == NULL or delivery.data.extension_instance_name.data == NULL \
                or not is_clean(addressee.app_version) or not is_clean(delivery.data.resource_path) \
                or not is_clean(delivery.data.extension_instance_name):
            self.counters.count("dropped", "no_topic")
            return True
        self.scratch.size = 0
        append_topic(
            self.scratch, addressee.app_version, delivery.data.extension_instance_name, addressee.token,
            delivery.data.resource_path, delivery.data.has_request_id, delivery.data.request_id,
            slice_of(b"/status" if success else b"/error"),
        )
        payload = to_bytes(delivery.data.payload) or b""
        if not success:
            phrase = delivery.data.reason_phrase
            payload = error_payload(
                status, phrase_of(status) if phrase.data == NULL else to_bytes(phrase).decode("utf-8", "replace")
            )
        return self.bridge.send(self.scratch.copy(), payload)


cdef str phrase_of(int status):
    """Return the reason phrase of a status code."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


cdef bytes error_payload(int status, str phrase):
    """Return the error payload of 1/KP."""
    return json.dumps({"statusCode": status, "reasonPhrase": phrase}, separators=(",", ":")).encode()


def endpoint_key_of(Router router not None, bytes topic not None):
    """Return (application version, token) of the endpoint that a topic names; None if it names none."""
    return router.named_by_filter(slice_of(topic))
