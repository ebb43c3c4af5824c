from libc.stdint cimport uint8_t, uint16_t

from kaa_gateway.wire.buffer cimport Slice


cdef enum MessageType:
    # docs/kp-over-udp.md, "Frame"
    DATA = 1
    CONFIRMED_DATA = 2
    REQUEST = 3
    ACK = 4
    RESPONSE = 5
    PUSH = 6
    PING = 7
    PONG = 8
    RESET = 9


cdef enum ResetReason:
    # docs/kp-over-udp.md, "Reasons of RESET"; from 400 on they are HTTP statuses
    MALFORMED = 1
    UNSUPPORTED_VERSION = 2
    UNKNOWN_ALIAS = 3
    ALIAS_HAS_ANOTHER_PATH = 4
    UNKNOWN_TYPE = 5
    NOT_WANTED = 6


cdef enum:
    MAGIC = 0xB
    VERSION = 1
    DATAGRAM_SIZE_MAX = 1200  # bytes
    HEADER_SIZE = 2           # bytes of a datagram before its frames
    HEAD_SIZE = 3             # bytes of a frame before its body, without length
    HEAD_SIZE_MAX = 5         # with length
    RESET_SIZE = 5            # bytes of a RESET frame
    ALIAS_MAX = 16
    PATH_SIZE_MAX = 255       # bytes
    PHRASE_SIZE_MAX = 255     # bytes
    PING_DATA_SIZE_MAX = 8    # bytes
    MESSAGE_OVERHEAD_MAX = HEAD_SIZE_MAX + 2   # of DATA, CONFIRMED_DATA, REQUEST, PING: beyond path and payload
    RESPONSE_OVERHEAD = HEAD_SIZE_MAX + 5      # beyond phrase and payload
    PUSH_OVERHEAD = HEAD_SIZE_MAX + 4          # beyond phrase, path and payload


# The result of reading a frame. The names of MALFORMED_REASONS in kpudp.pyx follow this order.
cdef enum FrameStatus:
    WELL_FORMED = 0
    TRUNCATED_HEAD      # nothing of the frame is known
    TRUNCATED_BODY
    BAD_FLAGS
    BAD_ALIAS
    BAD_PATH
    BAD_STATUS
    BAD_SIZE            # of a body whose size is fixed or bounded
    BAD_TYPE            # `consumed` says where the next frame begins


cdef struct Frame:
    # A message. Its slices borrow from the datagram. Fields that its type does not have are 0, or NULL slices.
    uint8_t type
    uint16_t message_id
    uint8_t alias
    Slice path
    uint16_t request_id
    uint16_t status        # or the reason of a RESET
    Slice reason_phrase
    Slice payload          # or the data of PING and PONG


cdef FrameStatus read_frame(const uint8_t* data, Py_ssize_t size, Frame* frame, Py_ssize_t* consumed) noexcept nogil

# The writers return the position behind what they wrote. A frame without length must be the last of its datagram.
cdef uint8_t* put_header(uint8_t* at, uint8_t epoch) noexcept nogil
cdef uint8_t* put_ack(uint8_t* at, uint16_t message_id) noexcept nogil
cdef uint8_t* put_reset(uint8_t* at, uint16_t message_id, uint16_t reason) noexcept nogil
cdef uint8_t* put_message(
    uint8_t* at, uint8_t type, uint16_t message_id, uint8_t alias, Slice path, Slice payload, bint with_length
) noexcept nogil
cdef uint8_t* put_response(
    uint8_t* at, uint16_t message_id, uint16_t request_id, uint16_t status, Slice reason_phrase, Slice payload,
    bint with_length,
) noexcept nogil
cdef uint8_t* put_push(
    uint8_t* at, uint16_t message_id, uint16_t status, Slice reason_phrase, Slice path, Slice payload, bint with_length
) noexcept nogil
cdef uint8_t* put_probe(uint8_t* at, uint8_t type, uint16_t message_id, Slice data, bint with_length) noexcept nogil
