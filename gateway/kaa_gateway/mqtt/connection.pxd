from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from kaa_gateway.kp.uplink cimport Message
from kaa_gateway.mqtt.filter_request cimport FilterRequest
from kaa_gateway.mqtt.session cimport MqttSession
from kaa_gateway.mqtt.topic_aliases cimport TopicAliases
from kaa_gateway.mqtt.will cimport Will
from kaa_gateway.net.transport cimport ProtocolCore
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.mqtt cimport Packet, PublishView


# Each state of a connection, and the packets that are legal in it: see MqttConnection.handle.
cdef enum ConnectionState:
    AWAITING_CONNECT
    AUTHENTICATING     # after CONNECT, before CONNACK: what follows is kept unparsed
    CONNECTED
    ENDED              # after DISCONNECT or a refusal, or when the connection is lost


cdef class MqttConnection(ProtocolCore)  # before the cimport, because ConnectHandler refers to it

from kaa_gateway.mqtt.server cimport MqttServer
from kaa_gateway.mqtt.session_entry cimport SessionEntry, WillEntry


cdef class MqttConnection(ProtocolCore):
    # wiring
    cdef MqttServer server
    # state
    cdef ConnectionState state
    cdef bint blocked            # handles no packets now: the client is being authenticated, or the uplink is busy
    cdef bint active             # bytes have come since the last check
    cdef uint8_t level           # protocol level
    cdef bint refuses_control_characters
    cdef uint8_t redirect_code      # reason code of the DISCONNECT that sends the client to another server, or 0
    cdef bint checks_more        # a PUBLISH needs more checks than those of MQTT 3.1.1
    cdef bint expiry_asked       # CONNECT asked for a session expiry
    cdef double keep_alive       # seconds, as CONNACK has granted it; 0 = none
    cdef double last_active      # loop time of the last check that found it active, or of the first; -1 before
    cdef str client_id           # "" before CONNECT has told it
    cdef str end_reason          # why the connection ends or has ended; None while nothing has ended it
    cdef MqttSession session
    cdef Will will
    cdef TopicAliases aliases    # of MQTT 5; None before the first
    cdef SessionEntry entry      # that it waits for, while AUTHENTICATING
    cdef WillEntry will_entry    # of `will_key` in the directory of all workers
    cdef tuple will_key          # in ConnectHandler.by_will, or None
    cdef Buffer tail             # bytes that are not handled yet
    cdef int filters_left        # topic filters that may be handled before the event loop goes on
    cdef FilterRequest filters   # a SUBSCRIBE or UNSUBSCRIBE of which a part is handled; or None

    cdef bint input_fits(self) noexcept
    cdef int count_tail(self) except -1
    cdef int parse_tail(self) except -1
    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int check_remaining_length(self) except -1
    cdef bint handle(self, const Packet* packet) except -1
    cdef bint on_publish(self, const Packet* packet) except -1
    cdef int await_response(self, const PublishView* publish, Message* message) except -1
    cdef bint track(self, const PublishView* publish, Message* message) except -1
    cdef PyObject* check_publish(self, PublishView* publish) except? NULL
    cdef int check_topic(self, Slice topic) except -1
    cdef PyObject* resolve_alias(self, PublishView* publish) except NULL
    cdef int on_disconnect(self, const Packet* packet) except -1
    cdef int disconnect(self, uint8_t reason_code) except -1
    cdef bint on_filters(self, const Packet* packet) except -1
    cdef int block(self) except -1
    cdef int publish_will(self, bint session_ends) except -1
    cdef int leave_session(self, bint discard) except -1
    cdef int taken_over(self, bint resumes) except -1
