from libc.stdint cimport uint8_t, uint16_t, uint64_t

from kaa_gateway.wire.buffer cimport Buffer


cdef enum Opcode:
    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


cdef enum:
    HEADER_SIZE_MAX = 14          # bytes
    CONTROL_PAYLOAD_MAX = 125     # bytes of the payload of a control frame


# RFC 6455 section 7.4.1
cdef enum CloseCode:
    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_CODE = 1005                # never sent: a Close frame without a code
    INVALID_PAYLOAD = 1007
    MESSAGE_TOO_BIG = 1009


cdef struct FrameHeader:
    bint final
    Opcode opcode
    uint64_t size                 # bytes of payload
    uint8_t[4] mask


# The result of read_header.
cdef enum HeaderFormat:
    HEADER_INCOMPLETE
    HEADER_WELL_FORMED
    RESERVED_BITS
    UNKNOWN_OPCODE
    NOT_MASKED
    OVERLONG_LENGTH
    BAD_CONTROL_FRAME


cdef HeaderFormat read_header(
    const uint8_t* data, Py_ssize_t size, FrameHeader* header, Py_ssize_t* taken
) noexcept nogil
cdef void unmask(
    uint8_t* target, const uint8_t* source, Py_ssize_t size, const uint8_t* mask, uint64_t at
) noexcept nogil
cdef int append_frame(Buffer out, Opcode opcode, const uint8_t* payload, Py_ssize_t size) except -1
cdef int append_close(Buffer out, CloseCode code) except -1
cdef int read_close(const uint8_t* payload, Py_ssize_t size) except -1
