from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from kaa_gateway.fleet.entry cimport DirectoryEntry
from kaa_gateway.kp.addressee cimport Addressee
from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.kp.session cimport Delivery, Endpoint, Session
from kaa_gateway.mqtt.client_options cimport ClientOptions
from kaa_gateway.mqtt.in_flight cimport InFlight
from kaa_gateway.mqtt.limits cimport MqttLimits
from kaa_gateway.mqtt.message_queue cimport MessageQueue
from kaa_gateway.mqtt.outgoing cimport Outgoing
from kaa_gateway.mqtt.received cimport ReceivedMessages
from kaa_gateway.mqtt.recent_pushes cimport RecentPushes
from kaa_gateway.mqtt.response_topics cimport AwaitedResponse, ResponseTopics
from kaa_gateway.mqtt.subscriptions cimport Subscriptions
from kaa_gateway.mqtt.topic_aliases cimport SentAliases
from kaa_gateway.mqtt.will cimport Will
from kaa_gateway.net.transport cimport ProtocolCore, Transport
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.esp cimport ExtensionDataView


# What the sequence of a message of MQTT 5 is, which comes back with its answer (Correlation). Where the upper bits are
# 0, as below MQTT 5, it is the number of the attachment.
cdef enum:
    OF_ACKNOWLEDGED = 2 << 26       # QoS 1 or 2: packet identifier, and number of the attachment
    OF_REQUEST = 3 << 26            # number in ResponseTopics
    KIND_MASK = 3 << 26
    REQUEST_MASK = (1 << 26) - 1
    PACKET_ID_SHIFT = 10
    ATTACHMENT_MASK = (1 << PACKET_ID_SHIFT) - 1


cdef enum:
    TOPIC_OVERHEAD = 256            # bytes of a registered topic beside its characters


# Where the client of a session is. A session that has ended is Session.closed.
cdef enum SessionState:
    NEW                # its client is being admitted
    ONLINE             # its client has a connection
    OFFLINE            # its client may come back to it


cdef Py_ssize_t size_of_topics(list names) except -1

cdef class MqttSession(Session)  # before the cimports, because these refer to it

from kaa_gateway.mqtt.session_store cimport MqttSessionStore
from kaa_gateway.mqtt.stored_session cimport MqttStoredSession


cdef class MqttSession(Session):
    # wiring
    cdef MqttLimits limits
    cdef MqttSessionStore store
    cdef ProtocolCore connection           # while ONLINE, else None
    cdef Transport transport               # while ONLINE, else None
    cdef Buffer scratch                    # a response topic under construction; shared by the sessions of a worker
    cdef Buffer properties                 # the same of properties
    # identity
    cdef str client_id
    cdef bint clean                        # it ends with its connection
    cdef double expiry                     # seconds for which it outlives a connection
    cdef uint64_t number                   # of the CONNECT that it is from (fleet/directory)
    cdef uint64_t revision                 # sequence in the stream that it was stored with elsewhere; 0: none
    # state; the small fields stand together, because there is a session for each connection
    cdef SessionState state
    cdef uint8_t level                     # protocol level
    cdef bint problem_information          # the client wants Reason Strings
    cdef float keep_alive                  # seconds, of this connection; for operators
    cdef uint32_t acks_due                 # PUBACK and PUBREC that wait for NATS
    cdef uint32_t window                   # messages that may be in flight to the client
    cdef uint32_t packet_size_max          # bytes of a packet to the client; 0 = any
    cdef Py_ssize_t stored_bytes           # what the store counts for it while it is offline; else 0
    cdef double offline_since              # loop time, while OFFLINE
    cdef double expires_at                 # loop time, while OFFLINE
    cdef double will_due                   # loop time at which the delayed will is published
    # state; None until first used
    cdef Subscriptions subscriptions
    cdef ReceivedMessages received
    cdef InFlight in_flight
    cdef MessageQueue queued
    cdef ResponseTopics responses
    cdef RecentPushes pushes
    cdef SentAliases aliases               # of this connection
    cdef list registered_topics            # of its client over MQTT-SN: topic ID n stands at n - 1; or None
    cdef bint uses_predefined_topics       # the same client has used predefined topic IDs
    cdef DirectoryEntry entry              # SessionEntry by which its client can find it again, or None
    cdef MqttStoredSession stored          # what is written of it, or None
    cdef Will will                         # waits for its delay, while OFFLINE

    cdef int bind(self, ProtocolCore connection, Transport transport, uint8_t level, ClientOptions options) except -1
    cdef int unbind(self) except -1
    cdef int at_rest(self) except -1
    cdef Py_ssize_t memory(self) except -1
    cdef int begin_sending_again(self) except -1
    cdef int send_again(self) except -1
    cdef int append_acknowledgement(self, uint8_t packet_type, uint16_t packet_id, uint8_t reason_code) except -1
    cdef uint32_t sequence_of_acknowledged(self, uint16_t packet_id) except? 0
    cdef bint is_too_large(self, Py_ssize_t size) noexcept
    cdef bint refuse_packet(self, uint16_t packet_id, int status, str reason_phrase) except -1
    cdef bint write_topic(
        self, const ExtensionDataView* data, const Addressee* addressee, bint success
    ) except -1
    cdef bint is_repeated_push(self, const Delivery* delivery) except -1
    cdef bint respond(self, const Delivery* delivery) except -1
    cdef int send_response(
        self, AwaitedResponse awaited, uint8_t qos, int status, str reason_phrase, Slice payload, int64_t deadline
    ) except -1
    cdef int prepare(self, Outgoing* message, Buffer own) except -1
    cdef int send(self, const Outgoing* message) except -1
    cdef int drop_message(self, const Outgoing* message, str reason) except -1
    cdef int send_in_flight(self, const Outgoing* message) except -1
    cdef int send_queued(self) except -1
    cdef int on_puback(self, uint16_t packet_id, uint8_t reason_code) except -1
    cdef int on_pubrec(self, uint16_t packet_id, uint8_t reason_code) except -1
    cdef int on_pubrel(self, uint16_t packet_id) except -1
    cdef int on_pubcomp(self, uint16_t packet_id) except -1
    cdef int on_acknowledged(self) except -1
    cdef uint8_t answer_qos(self, Slice topic, uint8_t qos) except 0xFF
    cdef uint8_t subscribe(self, Slice topic_filter, uint8_t qos, uint32_t identifier) except? 0x7F
    cdef uint8_t unsubscribe(self, Slice topic_filter) except? 0x7F
    cdef int send_error(
        self, Slice topic, uint8_t qos, int status, str reason_phrase, int64_t deadline, PyObject* receipt
    ) except -1
