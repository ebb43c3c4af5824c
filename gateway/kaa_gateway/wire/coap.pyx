"""The CoAP codec: messages are decoded from a borrowed datagram and encoded into a Buffer.

Options are read in place. Decoders return a Format instead of raising, because whether a malformed message is answered
with a Reset depends on its type (RFC 7252 section 4.2). The meaning of messages is kaa_gateway.coap's.

Source: RFC 7252 section 3; RFC 7959 section 2.2 (block options); RFC 8974 section 2 (extended tokens).
"""

from typing import NamedTuple

from libc.string cimport memcpy

from kaa_gateway.errors import ProtocolError

cdef enum:
    VERSION = 1
    OPTION_HEADER_MAX = 5    # bytes
    TOKEN_HEADER_MAX = 2     # bytes of an extended token length

FORMAT_REASONS = (
    "",
    "coap_too_short",
    "coap_unknown_version",
    "coap_token_length",
    "coap_truncated_token",
    "coap_empty_with_content",
    "coap_option_header",
    "coap_truncated_option",
    "coap_option_number",
    "coap_empty_payload",
    "",
)


cdef Format read_header(const uint8_t* data, Py_ssize_t size, MessageView* view) noexcept nogil:
    """Read the header and the token of a datagram; `options` of the view is all that follows them. Hot path.

    The view borrows from `data`. Its type, code and message ID are valid for results from BAD_TOKEN_LENGTH on.
    """
    cdef Format format
    if size < HEADER_SIZE:
        return TOO_SHORT
    if data[0] >> 6 != VERSION:
        return UNKNOWN_VERSION
    view.type = <Type>(data[0] >> 4 & 3)
    view.code = data[1]
    view.message_id = <uint16_t>(data[2] << 8 | data[3])
    if data[0] & 0x0F == 15:
        return BAD_TOKEN_LENGTH
    if view.code == EMPTY and size > HEADER_SIZE:
        return NOT_EMPTY
    format = read_token(data[0] & 0x0F, data + HEADER_SIZE, data + size, &view.token)
    if format != WELL_FORMED:
        return format
    view.options = Slice(view.token.data + view.token.size, data + size - view.token.data - view.token.size)
    view.payload = Slice(NULL, 0)
    return WELL_FORMED


cdef Format read_message(const uint8_t* data, Py_ssize_t size, MessageView* view) noexcept nogil:
    """Read a whole datagram and check that its options are well-formed. The view is as that of read_header."""
    cdef OptionReader reader
    cdef Slice value
    cdef Format format = read_header(data, size, view)
    if format != WELL_FORMED:
        return format
    reader = option_reader(view)
    format = next_option(&reader, &value)
    while format == WELL_FORMED:
        format = next_option(&reader, &value)
    if format != NO_OPTION:
        return format
    view.options.size = reader.at - view.options.data
    return take_payload(&reader, view)


# ---------------------------------------------------------------- encoding

cdef inline uint8_t* put_extended(uint8_t* at, uint32_t value, uint8_t* nibble) noexcept nogil:
    if value < ONE_BYTE_BASE:
        nibble[0] = <uint8_t>value
        return at
    if value < TWO_BYTE_BASE:
        nibble[0] = 13
        at[0] = <uint8_t>(value - ONE_BYTE_BASE)
        return at + 1
    nibble[0] = 14
    at[0] = <uint8_t>((value - TWO_BYTE_BASE) >> 8)
    at[1] = <uint8_t>((value - TWO_BYTE_BASE) & 0xFF)
    return at + 2


cdef int append_header(Buffer out, Type type, uint8_t code, uint16_t message_id, Slice token) except -1:
    """Append the header and the token, which has at most TOKEN_SIZE_MAX bytes."""
    cdef uint8_t* start = out.reserve(HEADER_SIZE + TOKEN_HEADER_MAX + token.size)
    cdef uint8_t* at
    cdef uint8_t nibble
    at = put_extended(start + HEADER_SIZE, <uint32_t>token.size, &nibble)
    start[0] = <uint8_t>(VERSION << 6 | <int>type << 4 | nibble)
    start[1] = code
    start[2] = <uint8_t>(message_id >> 8)
    start[3] = <uint8_t>(message_id & 0xFF)
    if token.size:
        memcpy(at, token.data, <size_t>token.size)
    out.size += at + token.size - start
    return 0


cdef int append_option(Buffer out, uint32_t previous, uint32_t number, Slice value) except -1:
    """Append an option; `previous` is the number of the option before it, or 0."""
    cdef uint8_t* start = out.reserve(OPTION_HEADER_MAX + value.size)
    cdef uint8_t* at = start + 1
    cdef uint8_t delta, length
    at = put_extended(at, number - previous, &delta)
    at = put_extended(at, <uint32_t>value.size, &length)
    start[0] = <uint8_t>(delta << 4 | length)
    if value.size:
        memcpy(at, value.data, <size_t>value.size)
    out.size = at + value.size - out.data
    return 0


cdef int append_uint_option(Buffer out, uint32_t previous, uint32_t number, uint32_t value) except -1:
    """Append an option with a uint value, without leading zero bytes."""
    cdef uint8_t[4] octets
    cdef int i, size = 0
    for i in range(3, -1, -1):
        if size or value >> 8 * i:
            octets[size] = <uint8_t>(value >> 8 * i & 0xFF)
            size += 1
    return append_option(out, previous, number, Slice(&octets[0], size))


cdef int append_payload(Buffer out, Slice payload) except -1:
    """Append the payload marker and the payload, or nothing if the payload is empty."""
    cdef uint8_t marker = PAYLOAD_MARKER
    if payload.size == 0:
        return 0
    out.append(&marker, 1)
    return out.append(payload.data, payload.size)


# ---------------------------------------------------------------- Python face

class Message(NamedTuple):
    """A decoded message; `type` is 0 to 3 for CON, NON, ACK and RST."""

    type: int
    code: int
    message_id: int
    token: bytes = b""
    options: tuple = ()
    payload: bytes = b""


def decode(bytes datagram not None):
    """Return the Message of a datagram. Raise ProtocolError if it is malformed."""
    cdef MessageView view
    cdef OptionReader reader
    cdef Slice value
    cdef Format format = read_message(<const uint8_t*>datagram, len(datagram), &view)
    if format != WELL_FORMED:
        raise ProtocolError(FORMAT_REASONS[<int>format])
    reader = option_reader(&view)
    options = []
    while next_option(&reader, &value) == WELL_FORMED:
        options.append((reader.number, value.data[:value.size]))
    return Message(
        <int>view.type, view.code, view.message_id, view.token.data[:view.token.size], tuple(options),
        view.payload.data[:view.payload.size] if view.payload.size else b"",
    )


def encode(message):
    """Return the datagram of a Message. Raise ValueError if a field is out of range or options are out of order."""
    cdef Buffer out = Buffer()
    cdef bytes token = message.token, value, payload = message.payload
    cdef uint32_t previous = 0
    if not 0 <= message.type <= 3 or not 0 <= message.code <= 255 or not 0 <= message.message_id <= 0xFFFF \
            or len(token) > TOKEN_SIZE_MAX:
        raise ValueError("type, code, message ID or token is out of range")
    append_header(
        out, <Type><int>message.type, message.code, message.message_id, Slice(<const uint8_t*>token, len(token))
    )
    for number, value in message.options:
        if not previous <= number <= OPTION_NUMBER_MAX or len(value) > 0xFFFF + TWO_BYTE_BASE:
            raise ValueError("options are out of order or out of range")
        append_option(out, previous, number, Slice(<const uint8_t*>value, len(value)))
        previous = number
    append_payload(out, Slice(<const uint8_t*>payload, len(payload)))
    return out.copy()
