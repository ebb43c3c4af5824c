from libc.stdint cimport uint8_t, uint16_t, uint32_t

from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.kp.session cimport Delivery, Endpoint, Session
from kaa_gateway.mqtt.received cimport ReceivedMessages
from kaa_gateway.mqtt.subscriptions cimport Subscriptions
from kaa_gateway.net.transport cimport ProtocolCore, Transport
from kaa_gateway.wire.buffer cimport Buffer, Slice


cdef class MqttLimits:
    cdef readonly Py_ssize_t in_flight_window
    cdef readonly Py_ssize_t queued_messages
    cdef readonly Py_ssize_t queued_bytes
    cdef readonly Py_ssize_t subscriptions
    cdef readonly Py_ssize_t topic_filter_size    # bytes
    cdef readonly Py_ssize_t persistent_sessions
    cdef readonly double session_expiry           # seconds
    cdef readonly Py_ssize_t persistent_bytes     # of the sessions whose clients are offline


# Where the client of a session is. A session that has ended is Session.closed.
cdef enum SessionState:
    NEW                # its client is being admitted
    ONLINE             # its client has a connection
    OFFLINE            # its client may come back to it


cdef class MqttSession(Session)  # before the cimport, because MqttSessionStore refers to it

from kaa_gateway.mqtt.session_store cimport MqttSessionStore


cdef class MqttSession(Session):
    # wiring
    cdef MqttLimits limits
    cdef MqttSessionStore store
    cdef ProtocolCore connection           # while ONLINE, else None
    cdef Transport transport               # while ONLINE, else None
    cdef Buffer scratch                    # a response topic under construction; shared by the sessions of a worker
    # identity
    cdef str client_id
    cdef bint clean                        # CleanSession of CONNECT: it ends with its connection
    # state; the small fields stand together, because there is a session for each connection
    cdef SessionState state
    cdef uint8_t level                     # protocol level
    cdef uint8_t generation                # of the last QoS 2 PUBLISH: see ReceivedMessage
    cdef uint16_t last_packet_id
    cdef uint32_t acks_due                 # PUBACK and PUBREC that wait for NATS
    cdef Py_ssize_t queued_bytes
    cdef Py_ssize_t in_flight_bytes        # of what may have to be sent again
    cdef Py_ssize_t sent_bytes             # of these, what was sent over this connection
    cdef Py_ssize_t stored_bytes           # while OFFLINE, what the store counts for it
    cdef double offline_since              # loop time
    # state; None until first used
    cdef Subscriptions subscriptions
    cdef ReceivedMessages received
    cdef dict in_flight                    # packet identifier -> PUBLISH to send again as bytes, or None for PUBREL
    cdef dict unsent                       # packet identifiers in flight that this connection has not sent yet
    cdef object queued                     # deque of (topic, payload, QoS) that wait for a place in the window

    cdef int bind(self, ProtocolCore connection, Transport transport) except -1
    cdef int unbind(self, double now) except -1
    cdef Py_ssize_t memory(self) except -1
    cdef int begin_sending_again(self) except -1
    cdef int send_again(self) except -1
    cdef int acknowledged(self, uint16_t packet_id, Py_ssize_t before, Py_ssize_t after) except -1
    cdef int send(self, Slice topic, Slice payload, uint8_t qos) except -1
    cdef bint has_room(self, Py_ssize_t size) noexcept
    cdef int send_in_flight(self, Slice topic, Slice payload, uint8_t qos) except -1
    cdef uint16_t next_packet_id(self) except 0
    cdef int send_queued(self) except -1
    cdef int on_puback(self, uint16_t packet_id) except -1
    cdef int on_pubrec(self, uint16_t packet_id) except -1
    cdef int on_pubrel(self, uint16_t packet_id) except -1
    cdef int on_pubcomp(self, uint16_t packet_id) except -1
    cdef uint8_t answer_qos(self, Slice topic, uint8_t qos) except 0xFF
    cdef uint8_t subscribe(self, Slice topic_filter, uint8_t qos) except? 0x7F
    cdef int unsubscribe(self, Slice topic_filter) except -1
    cdef int send_error(self, Slice topic, uint8_t qos, int status, str reason_phrase) except -1
