from libc.stdint cimport uint8_t, uint16_t

from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.mqtt_packet_types cimport (
    AUTH, CONNACK, CONNECT, DISCONNECT, PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, SUBSCRIBE,
    UNSUBACK, UNSUBSCRIBE,
)
from kaa_gateway.wire.mqtt_properties cimport Properties


cdef enum:
    LEVEL_3_1 = 3
    LEVEL_3_1_1 = 4
    LEVEL_5 = 5
    REMAINING_LENGTH_MAX = 268435455  # bytes, section 2.2.3
    FIXED_HEADER_SIZE_MAX = 5  # bytes
    CONNECT_SIZE_MAX = FIXED_HEADER_SIZE_MAX + 12 + 5 * 65537  # bytes of a CONNECT with all fields, each of full length


cdef enum ConnectReturnCode:
    # MQTT 3.1.1 section 3.2.2.3
    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL_VERSION = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_USER_NAME_OR_PASSWORD = 4
    NOT_AUTHORIZED = 5


cdef enum ReasonCode:
    # MQTT 5 section 2.4
    SUCCESS = 0x00
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED_ERROR = 0x80
    QUOTA_EXCEEDED = 0x97
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E


cdef struct Packet:
    # A packet cut out of a stream. `body` is what follows the fixed header, and borrows from the stream's bytes.
    uint8_t type
    uint8_t flags
    Slice body


cdef struct ConnectView:
    # The fields of a CONNECT. Slices borrow from the packet; an absent field has data NULL.
    uint8_t level
    bint clean_session          # of MQTT 5: Clean Start
    uint16_t keep_alive  # seconds, 0 = off
    Slice client_id
    Slice will_topic
    Slice will_message
    uint8_t will_qos
    bint will_retain
    Slice user_name
    Slice password
    Properties properties       # as of a level below 5, none is present
    Properties will_properties


cdef struct PublishView:
    # The fields of a PUBLISH. Slices borrow from the packet. The topic is not checked yet: see check_topic_name.
    Slice topic
    Slice payload
    uint16_t packet_id  # 0 for QoS 0
    uint8_t qos
    bint dup
    bint retain
    Properties properties  # of a level below 5, none is present


cdef struct TopicFilter:
    # An entry of a SUBSCRIBE or UNSUBSCRIBE; `filter` borrows from the packet.
    Slice filter
    uint8_t qos  # requested; of a SUBSCRIBE only
    bint no_local


cdef struct DisconnectView:
    # The fields of a client's DISCONNECT.
    uint8_t reason_code
    Properties properties


cdef Py_ssize_t next_packet(const uint8_t* data, Py_ssize_t size, Py_ssize_t size_max, Packet* packet) except -1
cdef Py_ssize_t missing_bytes(const uint8_t* data, Py_ssize_t size) noexcept nogil
cdef bint can_be_connect(const uint8_t* data, Py_ssize_t size) noexcept nogil
cdef int check_flags(const Packet* packet, uint8_t level) except -1
cdef int read_connect(const Packet* packet, ConnectView* connect) except -1
cdef int read_publish(const Packet* packet, uint8_t level, PublishView* publish) except -1
cdef int read_packet_id(const Packet* packet, uint8_t level, uint8_t* reason_code) except -1
cdef int read_empty(const Packet* packet, uint8_t level) except -1
cdef int read_disconnect(const Packet* packet, uint8_t level, DisconnectView* disconnect) except -1
cdef Py_ssize_t first_filter(const Packet* packet, uint8_t level, Properties* properties) except -1
cdef Py_ssize_t next_filter(const Packet* packet, uint8_t level, Py_ssize_t at, TopicFilter* entry) except -1

cdef Py_ssize_t publish_size(
    uint8_t level, Py_ssize_t topic_size, Py_ssize_t properties_size, Py_ssize_t payload_size, uint8_t qos
) noexcept nogil
cdef int append_publish(
    Buffer out, uint8_t level, uint8_t flags, Slice topic, uint16_t packet_id, Slice properties, Slice payload
) except -1
cdef int append_ack(Buffer out, uint8_t packet_type, uint16_t packet_id) except -1
cdef int append_ack_with_reason(
    Buffer out, uint8_t packet_type, uint16_t packet_id, uint8_t reason_code, Slice properties
) except -1
cdef int append_connack(
    Buffer out, uint8_t level, bint session_present, uint8_t reason_code, Slice properties
) except -1
cdef int append_filter_ack(
    Buffer out, uint8_t level, uint8_t packet_type, uint16_t packet_id, const uint8_t* reason_codes, Py_ssize_t count
) except -1
cdef int append_empty(Buffer out, uint8_t packet_type) except -1
cdef int append_disconnect(Buffer out, uint8_t reason_code, Slice properties) except -1
