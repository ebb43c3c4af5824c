"""A CoAP peer as an observer: its registrations, and their notifications, of which one at a time is under way.

Source: RFC 7641 (Observe).
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint16_t

from kaa_gateway.coap.observations cimport Notification
from kaa_gateway.coap.options cimport (
    Response, code_of_status, cut_diagnostic, format_of_payload, start_response,
)
from kaa_gateway.kp.receipts cimport kept_receipt
from kaa_gateway.kp.session cimport Session
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.coap cimport BAD_REQUEST, CON, CONTENT, GET, NON

cdef enum:
    OBSERVE_MASK = 0xFFFFFF         # of Observe in a notification

# The `observations` of a peer that has not observed yet. Nothing is added to it.
cdef dict NONE_OBSERVED = {}


@cython.final
cdef class Observer:
    """The observations of one peer."""

    cdef int64_t register(self, Exchange exchange, Endpoint endpoint) except -2:
        """Register the client of a successful request. Return the value of Observe in its response, or -1 for none."""
        cdef CoapContext context = self.context
        cdef bytes key = exchange.transfer_key.copy()
        cdef bytes token = exchange.token_bytes[:exchange.token_size]
        cdef Observation renewed = self.observations.get(token), observation
        if renewed is not None and renewed.transfer_key != key:
            self.remove(renewed)
            renewed = None
        if self.observations is NONE_OBSERVED:
            self.observations = {}
        observation = context.observations.register(self.peer, self.observations, token, key, endpoint)
        if observation is None:
            context.counters.count("refused", "coap_too_many_observers")
            return -1
        if observation.outstanding is not None and renewed is None:
            self.outbox.end_transmission(observation.outstanding)  # it has the token that the client has replaced
        context.sessions.set_online(<Session>self.peer, True)
        self.outbox.observes = True
        self.outbox.verified_observer = self.outbox.verified_observer or context.now < self.outbox.verified_until
        observation.accept = exchange.accept
        observation.szx = exchange.szx
        self.observe_sequence = (self.observe_sequence + 1) & OBSERVE_MASK
        return self.observe_sequence

    cdef int remove(self, Observation observation) except -1:
        """Remove an observation, if it is not yet removed, and stop retransmitting its notification."""
        if not self.context.observations.remove(self.observations, observation):
            return 0
        if observation.outstanding is not None:
            self.outbox.end_transmission(observation.outstanding)
        if not self.observations:
            self.outbox.observes = self.outbox.verified_observer = False
            self.context.sessions.set_online(<Session>self.peer, False)
        return 0

    cdef bint deliver(self, const ExtensionDataView* data, Endpoint endpoint, PyObject* receipt) except -1:
        """Send a push as notifications of the resource that it is for. Return False if nobody observes that."""
        cdef Observation observation
        cdef bint observed = False
        for observation in list(self.observations.values()):
            if observation.matches(data, endpoint):
                self.notify(observation, data, kept_receipt(receipt))
                observed = True
        return observed

    cdef int notify(self, Observation observation, const ExtensionDataView* data, Receipt receipt) except -1:
        """Send a push as a notification, or queue it behind the one that is not yet acknowledged.

        Each is confirmable: a push may be a command, not only the newest state.
        """
        cdef uint8_t code = code_of_status(data.status_code, GET)
        cdef int format = -1
        cdef Slice body = data.payload
        if code < BAD_REQUEST:
            code = CONTENT
            format = format_of_payload(observation.accept)
        elif data.reason_phrase.size:
            body = cut_diagnostic(data.reason_phrase)
        if observation.outstanding is None and not observation.queue \
                and self.send_notification(observation, code, format, body, receipt):
            return 0
        return self.context.observations.enqueue(observation, code, format, body, receipt)

    cdef bint send_notification(
        self, Observation observation, uint8_t code, int content_format, Slice body, Receipt receipt
    ) except -1:
        """Send a notification. Return False if it must wait until more bytes may be sent to this peer.

        One with an error code ends its observation (RFC 7641 section 4.2).
        """
        cdef uint16_t message_id = self.outbox.new_message_id()
        cdef Response response
        start_response(&response, code)
        response.body = body
        response.content_format = content_format if body.size else -1
        response.szx = observation.szx
        if code < BAD_REQUEST:
            self.observe_sequence = (self.observe_sequence + 1) & OBSERVE_MASK
            response.observe = self.observe_sequence
            response.max_age = NOTIFICATION_MAX_AGE
        else:
            self.remove(observation)
        if self.outbox.encode(
            CON, message_id, slice_of(observation.token), &response, slice_of(observation.transfer_key),
            self.outbox.send_limit(self.context.now),
        ):
            self.outbox.send_confirmable(message_id, observation if code < BAD_REQUEST else None)
            self.outbox.set_receipt(message_id, receipt)
            return True
        if code >= BAD_REQUEST:
            self.outbox.hold_confirmable(
                message_id, slice_of(observation.token), &response, slice_of(observation.transfer_key)
            )
            self.outbox.set_receipt(message_id, receipt)
            return True
        self.outbox.holds = True
        return False

    cdef int send_queued(self, Observation observation) except -1:
        """Send queued notifications until one of them has to be acknowledged."""
        cdef Notification notification
        while observation.outstanding is None:
            notification = self.context.observations.dequeue(observation)
            if notification is None:
                break
            if not self.send_notification(
                observation, notification.code, notification.content_format, slice_of(notification.body),
                notification.receipt,
            ):
                self.context.observations.put_back(observation, notification)
                break
        return 0

    cdef int end_all(self, uint8_t code) except -1:
        """End all observations, with a last notification that is not retransmitted."""
        cdef CoapContext context = self.context
        cdef Observation observation
        cdef Response response
        for observation in list(self.observations.values()):
            start_response(&response, code)
            if self.outbox.encode(
                NON, self.outbox.new_message_id(), slice_of(observation.token), &response,
                slice_of(observation.transfer_key), self.outbox.send_limit(context.now),
            ):
                self.outbox.send(context.out.data, context.out.size)
            self.remove(observation)
        return 0

    cdef int send_all_queued(self) except -1:
        """Send queued notifications of all observations, as far as they may be sent."""
        cdef Observation observation
        for observation in list(self.observations.values()):
            self.send_queued(observation)
        return 0

    cdef int close(self) except -1:
        """End all observations: the peer is gone."""
        cdef Observation observation
        for observation in list(self.observations.values()):
            self.remove(observation)
        self.peer = None
        return 0
