from libc.stdint cimport uint8_t, uint16_t

from kaa_gateway.wire.buffer cimport Buffer, Slice


cdef enum:
    LENGTH_SIZE_LONG = 3       # bytes of a length that says so
    LONG_LENGTH = 0x01         # the first byte of such a length
    SHORT_MESSAGE_MAX = 255    # bytes of a message with a length of one byte
    PROTOCOL_ID = 0x01
    FORWARDED_HEADER_MIN = 3   # bytes of an encapsulation without a node ID


cdef enum MessageType:
    # Table 3
    ADVERTISE = 0x00
    SEARCHGW = 0x01
    GWINFO = 0x02
    CONNECT = 0x04
    CONNACK = 0x05
    WILLTOPICREQ = 0x06
    WILLTOPIC = 0x07
    WILLMSGREQ = 0x08
    WILLMSG = 0x09
    REGISTER = 0x0A
    REGACK = 0x0B
    PUBLISH = 0x0C
    PUBACK = 0x0D
    PUBCOMP = 0x0E
    PUBREC = 0x0F
    PUBREL = 0x10
    SUBSCRIBE = 0x12
    SUBACK = 0x13
    UNSUBSCRIBE = 0x14
    UNSUBACK = 0x15
    PINGREQ = 0x16
    PINGRESP = 0x17
    DISCONNECT = 0x18
    WILLTOPICUPD = 0x1A
    WILLTOPICRESP = 0x1B
    WILLMSGUPD = 0x1C
    WILLMSGRESP = 0x1D
    ENCAPSULATED = 0xFE


cdef enum Flags:
    # Table 4
    DUP = 0x80
    QOS_SHIFT = 5
    QOS_MASK = 0x60
    RETAIN = 0x10
    WILL = 0x08
    CLEAN_SESSION = 0x04
    TOPIC_TYPE_MASK = 0x03


cdef enum TopicType:
    NORMAL = 0           # a registered topic ID; of SUBSCRIBE and UNSUBSCRIBE, a topic name
    PREDEFINED = 1
    SHORT_NAME = 2


cdef enum:
    QOS_MINUS_1 = 3


cdef enum ReturnCode:
    # Table 5
    RC_ACCEPTED = 0x00
    RC_CONGESTION = 0x01
    RC_INVALID_TOPIC_ID = 0x02
    RC_NOT_SUPPORTED = 0x03


cdef enum MessageStatus:
    SN_WELL_FORMED
    SN_BAD_LENGTH          # the length is not that of the datagram, or too short for the type
    SN_BAD_TYPE            # no message type, or none that a client sends
    SN_BAD_FIELD           # a field has a value that it must not have


cdef struct SnMessage:
    # A message of a client. Only the fields of its type are set. `text` borrows from the datagram.
    uint8_t type
    uint8_t flags
    uint8_t return_code    # or protocol ID
    bint empty             # WILLTOPIC, WILLTOPICUPD and DISCONNECT: it has no variable part
    uint16_t topic_id
    uint16_t message_id
    uint16_t duration      # seconds
    Slice text             # client ID, topic, will message, data


cdef MessageStatus read_message(const uint8_t* data, Py_ssize_t size, SnMessage* message) noexcept nogil
cdef Py_ssize_t forwarded_header(const uint8_t* data, Py_ssize_t size) noexcept nogil

cdef inline uint8_t topic_type(uint8_t flags) noexcept nogil:
    return flags & TOPIC_TYPE_MASK

cdef inline uint8_t qos_of(uint8_t flags) noexcept nogil:
    return (flags & QOS_MASK) >> QOS_SHIFT

cdef inline double tolerated_silence(double period) noexcept nogil:
    """Return after how many seconds a client is lost that is to send something every `period` (7.2)."""
    return 1.1 * period if period > 60 else 1.5 * period

cdef int append_empty(Buffer out, uint8_t type) except -1
cdef int append_byte(Buffer out, uint8_t type, uint8_t value) except -1
cdef int append_id(Buffer out, uint8_t type, uint16_t message_id) except -1
cdef int append_acknowledgement(
    Buffer out, uint8_t type, uint16_t topic_id, uint16_t message_id, uint8_t return_code
) except -1
cdef int append_suback(
    Buffer out, uint8_t flags, uint16_t topic_id, uint16_t message_id, uint8_t return_code
) except -1
cdef int append_register(Buffer out, uint16_t topic_id, uint16_t message_id, Slice topic) except -1
cdef int append_publish(Buffer out, uint8_t flags, uint16_t topic_id, uint16_t message_id, Slice payload) except -1
