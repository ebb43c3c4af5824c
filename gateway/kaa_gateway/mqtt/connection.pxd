from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.mqtt.session cimport MqttLimits, MqttSession, MqttSessions
from kaa_gateway.net.transport cimport InputMemory, ProtocolCore
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.mqtt cimport Packet


# Each state of a connection, and the packets that are legal in it: see MqttConnection.handle.
cdef enum State:
    AWAITING_CONNECT
    AUTHENTICATING     # CONNECT is here, CONNACK not sent: what follows is kept, unparsed
    CONNECTED
    ENDED              # DISCONNECT, or a refusal, or the connection is gone


cdef class MqttServer:
    # wiring
    cdef object loop
    cdef Uplink uplink
    cdef Sessions sessions
    cdef MqttSessions stored
    cdef Counters counters
    cdef object authenticator        # admits clients: kaa_gateway.identity.clients
    cdef MqttLimits limits
    cdef InputMemory input_memory
    cdef Py_ssize_t packet_size_max  # bytes
    cdef double connect_timeout      # seconds
    cdef double keep_alive_max       # seconds; 0 = as the client asks
    cdef Buffer scratch

    cdef double keep_alive_of(self, uint16_t asked) noexcept


cdef class Will:
    cdef bytes topic
    cdef bytes message
    cdef uint8_t qos


cdef class MqttConnection(ProtocolCore):
    # wiring
    cdef MqttServer server
    # state
    cdef State state
    cdef bint blocked            # take no more packets now: authenticating, or the uplink is busy
    cdef bint heard              # something came since the last check
    cdef uint8_t level
    cdef double keep_alive       # seconds of silence after which the client is gone; 0 = never
    cdef double last_heard       # loop time of the last check that found something
    cdef MqttSession session
    cdef Will will
    cdef Buffer tail             # bytes not yet handled

    cdef int count_tail(self) except -1
    cdef int parse_tail(self) except -1
    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef bint handle(self, const Packet* packet) except -1
    cdef bint on_publish(self, const Packet* packet) except -1
    cdef int on_connect(self, const Packet* packet) except -1
    cdef int turn_away(self, error) except -1
    cdef int refuse(self, uint8_t return_code, str reason) except -1
    cdef int admit(self, client, str client_id, bint clean) except -1
    cdef MqttSession open_session(self, client, str client_id, bint clean)
    cdef int on_subscribe(self, const Packet* packet) except -1
    cdef int on_unsubscribe(self, const Packet* packet) except -1
    cdef int block(self) except -1
    cdef int publish_will(self) except -1
    cdef int leave_session(self) except -1
    cdef int taken_over(self) except -1
