from libc.stdint cimport int32_t, uint8_t, uint16_t, uint64_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.mqtt.connection cimport MqttConnection
from kaa_gateway.mqtt_sn.outbox cimport Outbox
from kaa_gateway.mqtt_sn.publications cimport Publications
from kaa_gateway.mqtt_sn.topics cimport ClientTopics
from kaa_gateway.net.transport cimport Transport
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.mqtt cimport Packet
from kaa_gateway.wire.mqtt_sn cimport SnMessage


# Figure 4, and what comes before it. Which message is legal in which state: see MqttSnPeer.receive.
cdef enum PeerState:
    AWAIT_WILL_TOPIC
    AWAIT_WILL_MESSAGE
    CONNECTING           # its connection has the CONNECT, and has not accepted it yet
    ACTIVE
    ASLEEP
    AWAKE                # takes its messages between two sleeps
    GONE                 # disconnected, lost, refused or replaced


cdef class MqttSnPeer(Transport)  # before the cimport, because MqttSnServer refers to it

from kaa_gateway.mqtt_sn.server cimport MqttSnServer


cdef class MqttSnPeer(Transport):
    # wiring
    cdef MqttSnServer server
    cdef Counters counters
    cdef Outbox outbox
    cdef ClientTopics topics
    cdef MqttConnection connection   # None before CONNECT is complete, and after its end
    # identity
    cdef readonly bytes client_id
    # state
    cdef PeerState state
    cdef uint8_t connect_flags
    cdef bint clean                  # the client has asked for a clean session
    cdef uint16_t duration           # seconds, of its CONNECT: the keep-alive
    cdef double period               # seconds after which silence ends it; 0: never
    cdef double last_received        # loop time
    cdef double due                  # loop time of its entry in the server's timers; 0: it has none
    cdef uint8_t will_flags
    cdef bytes will_topic            # of a CONNECT that is not complete
    cdef bint fresh                  # nothing has come since CONNECT
    cdef bint leaving                # the client has sent DISCONNECT
    cdef bint closing                # its connection is to be closed after its output
    cdef bint woken                  # the server writes its output at the end of this tick
    cdef Publications publications   # None before the first QoS 1 message
    cdef dict subscribing            # message ID -> topic ID of a SUBSCRIBE that is not answered

    cdef int connect(self, const SnMessage* message) except -1
    cdef int return_to_active(self, const SnMessage* message) except -1
    cdef int open_connection(self, Slice will_message) except -1
    cdef int receive(self, const SnMessage* message) except -1
    cdef int on_will(self, const SnMessage* message) except -1
    cdef int on_will_update(self, const SnMessage* message) except -1
    cdef int on_register(self, const SnMessage* message) except -1
    cdef int on_publish(self, const SnMessage* message) except -1
    cdef bint is_repeated(self, const SnMessage* message, bytes topic) except -1
    cdef int on_subscribe(self, const SnMessage* message) except -1
    cdef int refuse_filter(self, const SnMessage* message, uint8_t return_code) except -1
    cdef int on_acknowledgement(self, const SnMessage* message) except -1
    cdef int on_pingreq(self, const SnMessage* message) except -1
    cdef int on_disconnect(self, const SnMessage* message) except -1
    cdef int feed(self) except -1
    cdef int flush(self) except -1
    cdef int translate(self) except -1
    cdef int on_packet(self, const Packet* packet) except -1
    cdef int on_connack(self, uint8_t code) except -1
    cdef int on_suback(self, const Packet* packet) except -1
    cdef int finish_awake(self) except -1
    cdef int set_period(self, double seconds) except -1
    cdef int become_active(self) except -1
    cdef int schedule(self, double due) except -1
    cdef int expire(self, double now) except -1
    cdef int end(self, str reason, bint tell) except -1
    cdef int leave(self, bint tell) except -1
