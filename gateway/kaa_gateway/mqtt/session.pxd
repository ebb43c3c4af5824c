from libc.stdint cimport uint8_t, uint16_t, uint32_t

from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.kp.sessions cimport Delivery, Endpoint, Session, Sessions
from kaa_gateway.net.transport cimport Transport, ProtocolCore
from kaa_gateway.wire.buffer cimport Buffer, Slice


cdef class MqttLimits:
    cdef readonly Py_ssize_t in_flight_window
    cdef readonly Py_ssize_t queued_messages
    cdef readonly Py_ssize_t queued_bytes
    cdef readonly Py_ssize_t subscriptions
    cdef readonly Py_ssize_t topic_filter_size    # bytes
    cdef readonly Py_ssize_t persistent_sessions
    cdef readonly double session_expiry            # seconds


cdef class MqttSessions


cdef class MqttSession(Session):
    # wiring
    cdef MqttLimits limits
    cdef MqttSessions stored
    cdef ProtocolCore connection           # of the connection that it has now, or None
    cdef Transport transport
    cdef Buffer scratch          # shared by the sessions of a worker: a response topic under construction
    # identity
    cdef str client_id
    cdef bint clean
    # What is small stands together: there is a session for each connection.
    cdef uint8_t level
    # state; None until first used
    cdef uint8_t highest_granted  # QoS, never less than the highest among the subscriptions
    cdef uint16_t last_packet_id
    cdef dict subscriptions      # topic filter -> granted QoS
    cdef dict received           # packet identifier of a QoS 2 PUBLISH -> whether PUBREC was sent
    cdef dict in_flight          # packet identifier -> what to send again: PUBLISH as bytes, or None for PUBREL
    cdef object queued           # deque of (topic, payload, QoS) that wait for a place in the window
    cdef Py_ssize_t queued_bytes
    cdef Py_ssize_t in_flight_bytes  # of what may have to be sent again
    cdef double offline_since    # loop time

    cdef int bind(self, ProtocolCore connection, Transport transport) except -1
    cdef int unbind(self, double now) except -1
    cdef int send_again(self) except -1
    cdef int send(self, Slice topic, Slice payload, uint8_t qos) except -1
    cdef bint has_room(self) noexcept
    cdef int send_in_flight(self, Slice topic, Slice payload, uint8_t qos) except -1
    cdef uint16_t next_packet_id(self) except 0
    cdef int send_queued(self) except -1
    cdef int on_puback(self, uint16_t packet_id) except -1
    cdef int on_pubrec(self, uint16_t packet_id) except -1
    cdef int on_pubrel(self, uint16_t packet_id) except -1
    cdef int on_pubcomp(self, uint16_t packet_id) except -1
    cdef uint8_t subscribe(self, Slice topic_filter, uint8_t qos) except? 0x7F
    cdef int unsubscribe(self, Slice topic_filter) except -1
    cdef uint8_t granted_qos(self, Slice topic) noexcept
    cdef int error(self, Slice topic, uint8_t qos, int status, str reason_phrase) except -1


cdef class MqttSessions:
    # wiring
    cdef Sessions sessions
    cdef MqttLimits limits
    # state
    cdef dict by_client          # (principal, client identifier) -> MqttSession that its client can find again
    cdef object offline          # OrderedDict of MqttSession -> None, longest gone first

    cdef MqttSession find(self, str principal, str client_id)
    cdef int add(self, MqttSession session) except -1
    cdef int discard(self, MqttSession session) except -1
    cdef int keep_offline(self, MqttSession session) except -1
    cdef int back_online(self, MqttSession session) except -1


cdef bint matches(Slice topic_filter, Slice topic) noexcept nogil
