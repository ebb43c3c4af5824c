"""The will of a client: the message that the server publishes if the client goes without a DISCONNECT.

When that is, and whether a client has come back in time, is decided in connection.pyx, connect_handler.pyx and
session_store.pyx.

Source: MQTT 3.1.1 section 3.1.2.5; MQTT 5 sections 3.1.2.5 and 3.1.3.2 (will properties).
"""

from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.kp.uplink cimport BUSY, BY_ATTACHMENT, Message
from kaa_gateway.wire.buffer cimport Slice, slice_of
from kaa_gateway.wire.mqtt_properties cimport MESSAGE_EXPIRY_INTERVAL, WILL_DELAY_INTERVAL, has

cdef enum:
    MILLISECONDS = 1000


cdef class Will:
    """The message that a client leaves behind."""

    cdef int publish(self, Uplink uplink, Session session) except -1:
        """Publish the will like any other message of its client. Drop it if the link has no room."""
        cdef Message message
        message.topic = slice_of(self.topic)
        message.payload = slice_of(self.message)
        message.service = <Service>self.qos
        message.token = 0
        message.sequence = BY_ATTACHMENT
        message.timeout = self.timeout
        message.unanswered = False
        message.literal = False
        message.needs_request_id = False
        message.traceparent = Slice(NULL, 0)
        # A full link would resume the session later, but its client is gone.
        if uplink.link.full or uplink.publish(session, &message) == BUSY:
            session.counters.count("dropped", "will")
        return 0


cdef Will will_of(const ConnectView* connect):
    """Return the will of a CONNECT, or None."""
    cdef Will will
    if connect.will_topic.data == NULL:
        return None
    will = Will()
    will.topic = connect.will_topic.data[:connect.will_topic.size]
    will.message = connect.will_message.data[:connect.will_message.size]
    will.qos = connect.will_qos
    if has(&connect.will_properties, WILL_DELAY_INTERVAL):
        will.delay = connect.will_properties.number[<int>WILL_DELAY_INTERVAL]
    if has(&connect.will_properties, MESSAGE_EXPIRY_INTERVAL):
        will.timeout = max(<int64_t>connect.will_properties.number[<int>MESSAGE_EXPIRY_INTERVAL] * MILLISECONDS, 1)
    return will
