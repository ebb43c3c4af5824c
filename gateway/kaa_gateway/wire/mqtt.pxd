from libc.stdint cimport uint8_t, uint16_t

from kaa_gateway.wire.buffer cimport Buffer, Slice


cdef enum PacketType:
    # MQTT 3.1.1 section 2.2.1
    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


cdef enum:
    LEVEL_3_1 = 3
    LEVEL_3_1_1 = 4
    REMAINING_LENGTH_MAX = 268435455  # bytes, section 2.2.3
    FIXED_HEADER_SIZE_MAX = 5  # bytes
    CONNECT_SIZE_MAX = FIXED_HEADER_SIZE_MAX + 12 + 5 * 65537  # bytes of a CONNECT with all fields, each of full length


cdef enum ConnectReturnCode:
    # section 3.2.2.3
    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL_VERSION = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_USER_NAME_OR_PASSWORD = 4
    NOT_AUTHORIZED = 5


cdef struct Packet:
    # A packet cut out of a stream. `body` is what follows the fixed header, and borrows from the stream's bytes.
    uint8_t type
    uint8_t flags
    Slice body


cdef struct ConnectView:
    # The fields of a CONNECT. Slices borrow from the packet; an absent field has data NULL.
    uint8_t level
    bint clean_session
    uint16_t keep_alive  # seconds, 0 = off
    Slice client_id
    Slice will_topic
    Slice will_message
    uint8_t will_qos
    bint will_retain
    Slice user_name
    Slice password


cdef struct PublishView:
    # The fields of a PUBLISH. Slices borrow from the packet. The topic is not checked yet: see check_topic_name.
    Slice topic
    Slice payload
    uint16_t packet_id  # 0 for QoS 0
    uint8_t qos
    bint dup
    bint retain


cdef struct TopicFilter:
    # An entry of a SUBSCRIBE or UNSUBSCRIBE; `filter` borrows from the packet.
    Slice filter
    uint8_t qos  # requested; of a SUBSCRIBE only


cdef Py_ssize_t next_packet(const uint8_t* data, Py_ssize_t size, Py_ssize_t size_max, Packet* packet) except -1
cdef bint can_be_connect(const uint8_t* data, Py_ssize_t size) noexcept nogil
cdef int check_flags(const Packet* packet, uint8_t level) except -1
cdef int read_connect(const Packet* packet, ConnectView* connect) except -1
cdef int read_publish(const Packet* packet, uint8_t level, PublishView* publish) except -1
cdef int read_packet_id(const Packet* packet, uint8_t level) except -1
cdef int read_empty(const Packet* packet, uint8_t level) except -1
cdef Py_ssize_t first_filter(const Packet* packet) except -1
cdef Py_ssize_t next_filter(const Packet* packet, Py_ssize_t at, TopicFilter* entry) except -1
cdef int check_topic_name(Slice topic) except -1
cdef int check_topic_filter(Slice topic_filter) except -1

cdef Py_ssize_t publish_size(Py_ssize_t topic_size, Py_ssize_t payload_size, uint8_t qos) noexcept nogil
cdef uint8_t* put_publish_head(
    uint8_t* at, uint8_t flags, Slice topic, uint16_t packet_id, Py_ssize_t payload_size
) noexcept nogil
cdef int append_publish(
    Buffer out, uint8_t level, uint8_t flags, Slice topic, uint16_t packet_id, Slice payload
) except -1
cdef int append_ack(Buffer out, uint8_t packet_type, uint16_t packet_id) except -1
cdef int append_connack(Buffer out, bint session_present, uint8_t return_code) except -1
cdef int append_suback(Buffer out, uint16_t packet_id, const uint8_t* return_codes, Py_ssize_t count) except -1
cdef int append_empty(Buffer out, uint8_t packet_type) except -1
