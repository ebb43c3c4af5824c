"""KP over UDP: reads frames from borrowed bytes, and writes frames into a datagram.

Both sides of the protocol use it: the gateway, and the client of the bench. Peers, timers and sockets live elsewhere.

Source: docs/kp-over-udp.md, version 1.
"""

from enum import IntEnum
from typing import NamedTuple

from libc.string cimport memcpy, memset

from kaa_gateway.errors import ProtocolError

cdef enum:
    HAS_LENGTH = 0x80
    HAS_PATH = 0x40
    RESERVED = 0x30
    TYPE_MASK = 0x0F

MALFORMED_REASONS = (
    "", "kpudp_truncated_head", "kpudp_truncated_body", "kpudp_flags", "kpudp_alias", "kpudp_path", "kpudp_status",
    "kpudp_size", "kpudp_unknown_type",
)
"""The reason codes of FrameStatus."""


# ---------------------------------------------------------------- decoding

cdef inline uint16_t get_16(const uint8_t* at) noexcept nogil:
    return <uint16_t>(at[0] << 8 | at[1])


cdef inline bint take(Slice* rest, Py_ssize_t size, Slice* field) noexcept nogil:
    """Cut `size` bytes off the front. Return False if there are fewer."""
    if rest.size < size:
        return False
    field[0] = Slice(rest.data, size)
    rest.data += size
    rest.size -= size
    return True


cdef inline bint take_counted(Slice* rest, Slice* field) noexcept nogil:
    """Cut off a field that begins with its length in a byte. Return False if it is not whole."""
    cdef Slice length
    return take(rest, 1, &length) and take(rest, length.data[0], field)


cdef FrameStatus read_frame(const uint8_t* data, Py_ssize_t size, Frame* frame, Py_ssize_t* consumed) noexcept nogil:
    """Read the first of the frames that follow the header of a datagram. Hot path; any bytes are safe.

    `consumed` is set if the frame is well-formed or its type unknown. Type and message ID are set unless the status is
    TRUNCATED_HEAD.
    """
    cdef Slice body
    cdef uint8_t flags
    memset(frame, 0, sizeof(Frame))
    if size < HEAD_SIZE:
        return TRUNCATED_HEAD
    flags = data[0]
    frame.type = flags & TYPE_MASK
    frame.message_id = get_16(data + 1)
    body = Slice(data + HEAD_SIZE, size - HEAD_SIZE)
    if flags & RESERVED:
        return BAD_FLAGS
    if frame.type == ACK or frame.type == RESET:
        if flags != frame.type:
            return BAD_FLAGS
        if frame.type == RESET:
            if body.size < 2:
                return TRUNCATED_BODY
            frame.status = get_16(body.data)
        consumed[0] = RESET_SIZE if frame.type == RESET else HEAD_SIZE
        return WELL_FORMED
    if flags & HAS_LENGTH:
        if body.size < 2 or body.size - 2 < get_16(body.data):
            return TRUNCATED_BODY
        body = Slice(body.data + 2, get_16(body.data))
    consumed[0] = body.data + body.size - data
    if not DATA <= frame.type <= RESET:
        return BAD_TYPE
    if flags & HAS_PATH and (frame.type > REQUEST and frame.type != PING):
        return BAD_FLAGS
    return read_body(frame, body, flags & HAS_PATH)


cdef FrameStatus read_body(Frame* frame, Slice body, bint has_path) noexcept nogil:
    """Read what follows the head of a frame."""
    cdef Slice field
    if frame.type <= REQUEST or has_path:
        if not take(&body, 1, &field):
            return TRUNCATED_BODY
        frame.alias = field.data[0]
        if frame.alias > ALIAS_MAX or (frame.alias == 0 and not has_path):
            return BAD_ALIAS
        if has_path and (not take_counted(&body, &frame.path) or frame.path.size == 0):
            return BAD_PATH
    if frame.type == RESPONSE:
        if not take(&body, 2, &field):
            return TRUNCATED_BODY
        frame.request_id = get_16(field.data)
    if frame.type == RESPONSE or frame.type == PUSH:
        if not take(&body, 2, &field) or not take_counted(&body, &frame.reason_phrase):
            return BAD_STATUS
        frame.status = get_16(field.data)
    if frame.type == PUSH and (not take_counted(&body, &frame.path) or frame.path.size == 0):
        return BAD_PATH
    if frame.type >= PING and body.size > PING_DATA_SIZE_MAX:
        return BAD_SIZE
    frame.payload = body
    return WELL_FORMED


# ---------------------------------------------------------------- encoding

cdef inline uint8_t* put_16(uint8_t* at, uint16_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 8)
    at[1] = <uint8_t>(value & 0xFF)
    return at + 2


cdef inline uint8_t* put_slice(uint8_t* at, Slice value) noexcept nogil:
    if value.size:
        memcpy(at, value.data, <size_t>value.size)
    return at + value.size


cdef inline uint8_t* put_counted(uint8_t* at, Slice value) noexcept nogil:
    at[0] = <uint8_t>value.size
    return put_slice(at + 1, value)


cdef inline uint8_t* put_head(
    uint8_t* at, uint8_t flags, uint16_t message_id, Py_ssize_t body_size, bint with_length
) noexcept nogil:
    at[0] = flags | HAS_LENGTH if with_length else flags
    at = put_16(at + 1, message_id)
    return put_16(at, <uint16_t>body_size) if with_length else at


cdef uint8_t* put_header(uint8_t* at, uint8_t epoch) noexcept nogil:
    """Write the start of a datagram: HEADER_SIZE bytes."""
    at[0] = MAGIC << 4 | VERSION
    at[1] = epoch
    return at + HEADER_SIZE


cdef uint8_t* put_ack(uint8_t* at, uint16_t message_id) noexcept nogil:
    """Write ACK: HEAD_SIZE bytes. Hot path."""
    return put_head(at, ACK, message_id, 0, False)


cdef uint8_t* put_reset(uint8_t* at, uint16_t message_id, uint16_t reason) noexcept nogil:
    """Write RESET: RESET_SIZE bytes."""
    return put_16(put_head(at, RESET, message_id, 0, False), reason)


cdef uint8_t* put_message(
    uint8_t* at, uint8_t type, uint16_t message_id, uint8_t alias, Slice path, Slice payload, bint with_length
) noexcept nogil:
    """Write DATA, CONFIRMED_DATA, REQUEST, or a PING with a path. Hot path.

    It takes at most MESSAGE_OVERHEAD_MAX bytes beside path and payload. A path whose data is NULL is left out.
    """
    if path.data == NULL:
        at = put_head(at, type, message_id, 1 + payload.size, with_length)
        at[0] = alias
        return put_slice(at + 1, payload)
    at = put_head(at, type | HAS_PATH, message_id, 2 + path.size + payload.size, with_length)
    at[0] = alias
    return put_slice(put_counted(at + 1, path), payload)


cdef uint8_t* put_response(
    uint8_t* at, uint16_t message_id, uint16_t request_id, uint16_t status, Slice reason_phrase, Slice payload,
    bint with_length,
) noexcept nogil:
    """Write RESPONSE: phrase, payload and at most RESPONSE_OVERHEAD bytes. Hot path."""
    at = put_head(at, RESPONSE, message_id, 5 + reason_phrase.size + payload.size, with_length)
    at = put_counted(put_16(put_16(at, request_id), status), reason_phrase)
    return put_slice(at, payload)


cdef uint8_t* put_push(
    uint8_t* at, uint16_t message_id, uint16_t status, Slice reason_phrase, Slice path, Slice payload, bint with_length
) noexcept nogil:
    """Write PUSH: phrase, path, payload and at most PUSH_OVERHEAD bytes."""
    at = put_head(at, PUSH, message_id, 4 + reason_phrase.size + path.size + payload.size, with_length)
    at = put_counted(put_counted(put_16(at, status), reason_phrase), path)
    return put_slice(at, payload)


cdef uint8_t* put_probe(uint8_t* at, uint8_t type, uint16_t message_id, Slice data, bint with_length) noexcept nogil:
    """Write PONG, or PING without path: the data and at most HEAD_SIZE_MAX bytes."""
    return put_slice(put_head(at, type, message_id, data.size, with_length), data)


# ---------------------------------------------------------------- for Python

Type = IntEnum("Type", {
    "DATA": DATA, "CONFIRMED_DATA": CONFIRMED_DATA, "REQUEST": REQUEST, "ACK": ACK, "RESPONSE": RESPONSE,
    "PUSH": PUSH, "PING": PING, "PONG": PONG, "RESET": RESET,
})
"""The types of messages."""

Reason = IntEnum("Reason", {
    "MALFORMED": MALFORMED, "UNSUPPORTED_VERSION": UNSUPPORTED_VERSION, "UNKNOWN_ALIAS": UNKNOWN_ALIAS,
    "ALIAS_HAS_ANOTHER_PATH": ALIAS_HAS_ANOTHER_PATH, "UNKNOWN_TYPE": UNKNOWN_TYPE, "NOT_WANTED": NOT_WANTED,
})
"""The reasons of RESET that are not HTTP statuses."""


class Message(NamedTuple):
    """A frame. Fields that its type does not have keep their defaults."""

    type: Type
    message_id: int
    alias: int = 0
    path: str | None = None
    request_id: int = 0
    status: int = 0
    reason_phrase: str = ""
    payload: bytes = b""


def decode(bytes datagram not None):
    """Return (epoch, messages) of a datagram.

    Raises ProtocolError if the datagram or any of its frames is malformed. The server is more lenient: it handles the
    frames before a malformed one.
    """
    cdef Frame frame
    cdef FrameStatus status
    cdef Py_ssize_t at = HEADER_SIZE, size = len(datagram), consumed = 0
    cdef const uint8_t* data = datagram
    if size < HEADER_SIZE or data[0] >> 4 != MAGIC:
        raise ProtocolError("kpudp_not_kpudp")
    if data[0] & 0x0F != VERSION:
        raise ProtocolError("kpudp_version")
    if size == HEADER_SIZE:
        raise ProtocolError("kpudp_empty")
    messages = []
    while at < size:
        status = read_frame(data + at, size - at, &frame, &consumed)
        if status != WELL_FORMED:
            raise ProtocolError(MALFORMED_REASONS[<int>status])
        messages.append(message_of(&frame))
        at += consumed
    return data[1], messages


cdef object message_of(const Frame* frame):
    """Return the Message of a frame."""
    try:
        path = None if frame.path.data == NULL else frame.path.data[:frame.path.size].decode()
    except UnicodeDecodeError:
        raise ProtocolError("kpudp_path") from None
    return Message(
        Type(frame.type), frame.message_id, frame.alias, path, frame.request_id, frame.status,
        "" if frame.reason_phrase.data == NULL
        else frame.reason_phrase.data[:frame.reason_phrase.size].decode("utf-8", "replace"),
        b"" if frame.payload.data == NULL else frame.payload.data[:frame.payload.size],
    )


def encode(epoch, messages, *, last_has_length=False):
    """Return a datagram of messages. Raises ValueError if it would break a bound of the protocol."""
    cdef Py_ssize_t i, count = len(messages)
    out = bytearray(HEADER_SIZE)
    put_header(<uint8_t*>out, epoch)
    for i in range(count):
        out += encode_frame(messages[i], i < count - 1 or last_has_length)
    if count == 0 or len(out) > DATAGRAM_SIZE_MAX:
        raise ValueError("a datagram holds at least one frame and at most 1200 bytes")
    return bytes(out)


cdef bytes encode_frame(message, bint with_length):
    """Return the frame of a message."""
    cdef bytes path_bytes = b"" if message.path is None else message.path.encode()
    cdef bytes phrase_bytes = message.reason_phrase.encode()
    cdef bytes payload_bytes = message.payload
    cdef Slice path = Slice(<const uint8_t*>path_bytes, len(path_bytes))
    cdef Slice phrase = Slice(<const uint8_t*>phrase_bytes, len(phrase_bytes))
    cdef Slice payload = Slice(<const uint8_t*>payload_bytes, len(payload_bytes))
    cdef uint8_t[2 * DATAGRAM_SIZE_MAX] out
    cdef uint8_t* end = out
    cdef uint8_t type = message.type
    cdef uint16_t message_id = message.message_id
    if path.size > PATH_SIZE_MAX or phrase.size > PHRASE_SIZE_MAX or payload.size > DATAGRAM_SIZE_MAX \
            or (type >= PING and payload.size > PING_DATA_SIZE_MAX):
        raise ValueError("a path and a phrase have at most 255 bytes, a datagram at most 1200, a probe 8")
    if message.path is None:
        path.data = NULL
    elif not path_bytes:
        raise ValueError("a path has at least one byte")
    if type == ACK:
        end = put_ack(out, message_id)
    elif type == RESET:
        end = put_reset(out, message_id, message.status)
    elif type == RESPONSE:
        end = put_response(
            out, message_id, message.request_id, message.status, phrase, payload, with_length
        )
    elif type == PUSH:
        end = put_push(out, message_id, message.status, phrase, path, payload, with_length)
    elif type == PONG or (type == PING and path.data == NULL):
        end = put_probe(out, type, message_id, payload, with_length)
    else:
        end = put_message(out, type, message_id, message.alias, path, payload, with_length)
    return out[:end - out]
