"""The session of an address that publishes at QoS -1: without CONNECT, and without an answer of any kind.

Source: MQTT-SN 1.2, sections 6.8 and 7.1.
"""

from kaa_gateway.kp.correlation cimport AT_MOST_ONCE
from kaa_gateway.kp.session cimport Delivery, Endpoint
from kaa_gateway.kp.uplink cimport BUSY, BY_ATTACHMENT, Message


cdef class UnconnectedPublisher(Session):
    """The endpoints that an address has published for. Nothing can be sent to them here."""

    cdef int publish(self, Slice topic, Slice payload) except -1:
        """Forward a message, or drop it."""
        cdef Message message
        message.topic = topic
        message.payload = payload
        message.service = AT_MOST_ONCE
        message.token = 0
        message.sequence = BY_ATTACHMENT
        message.timeout = 0
        message.unanswered = False
        message.literal = False
        message.needs_request_id = False
        message.traceparent = Slice(NULL, 0)
        if self.uplink.publish(self, &message) == BUSY:
            self.counters.count("dropped", "mqtt_sn_congestion")
        return 0

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        return False

    cdef int end(self, str reason) except -1:
        """Forget the address."""
        if not self.closed:
            self.counters.count("closed", reason)
            self.publishers.pop(self.address, None)
            self.uplink.sessions.close(self)
        return 0
