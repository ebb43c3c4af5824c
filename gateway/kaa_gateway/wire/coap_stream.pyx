"""The framing of CoAP over reliable transports: TCP and TLS, and WebSocket, where the length is that of its message.

A message has no type and no message ID. Code, token, options and payload are those of a datagram, so only the front of
a message is written and read here. The rest is kaa_gateway.wire.coap's.

Source: RFC 8323 sections 3.2 (TCP) and 4.2 (WebSocket); RFC 8974 section 2.1 (extended tokens).
"""

from libc.string cimport memcpy

from kaa_gateway.errors import ProtocolError

from kaa_gateway.wire.coap cimport (
    HEADER_SIZE, STREAM, WELL_FORMED, Format, OptionReader, next_option, option_reader, read_token, take_payload,
)

from kaa_gateway.wire.coap import FORMAT_REASONS, Message, encode

cdef enum:
    EIGHT_BITS = 13          # values of the length nibble, and what each adds to the length that follows
    SIXTEEN_BITS = 14
    THIRTY_TWO_BITS = 15
    EIGHT_BITS_BASE = 13
    SIXTEEN_BITS_BASE = 269
    THIRTY_TWO_BITS_BASE = 65805

STREAM_REASONS = ("", "", "coap_token_length", "coap_truncated_token", "coap_message_length")


cdef Py_ssize_t size_of_message(const uint8_t* data, Py_ssize_t size) noexcept nogil:
    """Return the size of the first message, of which `size` bytes are here. Hot path.

    0: more bytes are needed to know it; -1: the length of its token is reserved. The size may exceed any bound.
    """
    cdef Py_ssize_t length, header, token, extension = 0
    if size < 1:
        return 0
    length = data[0] >> 4
    token = data[0] & 0x0F
    if token == 15:
        return -1
    header = 2 if length < EIGHT_BITS else 3 if length == EIGHT_BITS else 4 if length == SIXTEEN_BITS else 6
    if token >= 13:
        extension = token - 12
    if size < header + extension:
        return 0
    if length == EIGHT_BITS:
        length = EIGHT_BITS_BASE + data[1]
    elif length == SIXTEEN_BITS:
        length = SIXTEEN_BITS_BASE + (<Py_ssize_t>data[1] << 8 | data[2])
    elif length == THIRTY_TWO_BITS:
        length = THIRTY_TWO_BITS_BASE + (
            <Py_ssize_t>data[1] << 24 | <Py_ssize_t>data[2] << 16 | <Py_ssize_t>data[3] << 8 | data[4]
        )
    if token == 13:
        token = 13 + data[header]
    elif token == 14:
        token = 269 + (<Py_ssize_t>data[header] << 8 | data[header + 1])
    return header + extension + token + length


cdef StreamFormat read_stream_message(const uint8_t* data, Py_ssize_t size, MessageView* view) noexcept nogil:
    """Read the front of a message of exactly `size` bytes; `options` of the view is all behind its token. Hot path.

    The view borrows from `data`. The caller checks that a message of a WebSocket has no length of its own.
    """
    cdef int length = data[0] >> 4 if size else 0
    cdef Py_ssize_t header = 2 if length < EIGHT_BITS else 3 if length == EIGHT_BITS else 4
    cdef Format format
    if length == THIRTY_TWO_BITS:
        header = 6
    if size < header:
        return STREAM_TRUNCATED
    if data[0] & 0x0F == 15:
        return STREAM_TOKEN_LENGTH
    format = read_token(data[0] & 0x0F, data + header, data + size, &view.token)
    if format != WELL_FORMED:
        return STREAM_TRUNCATED
    view.type = STREAM
    view.code = data[header - 1]
    view.message_id = 0
    view.options = Slice(view.token.data + view.token.size, data + size - view.token.data - view.token.size)
    view.payload = Slice(NULL, 0)
    return STREAM_MESSAGE


cdef inline uint8_t* put_front(
    uint8_t* at, Py_ssize_t length, uint8_t token_nibble, uint8_t code, bint has_length
) noexcept nogil:
    """Write length, token length and code. Return what is behind them."""
    cdef Py_ssize_t rest
    cdef uint8_t* start = at
    at += 1
    if not has_length:
        start[0] = token_nibble
    elif length < EIGHT_BITS_BASE:
        start[0] = <uint8_t>(length << 4) | token_nibble
    elif length < SIXTEEN_BITS_BASE:
        start[0] = <uint8_t>(EIGHT_BITS << 4) | token_nibble
        at[0] = <uint8_t>(length - EIGHT_BITS_BASE)
        at += 1
    elif length < THIRTY_TWO_BITS_BASE:
        start[0] = <uint8_t>(SIXTEEN_BITS << 4) | token_nibble
        rest = length - SIXTEEN_BITS_BASE
        at[0] = <uint8_t>(rest >> 8)
        at[1] = <uint8_t>(rest & 0xFF)
        at += 2
    else:
        start[0] = <uint8_t>(THIRTY_TWO_BITS << 4) | token_nibble
        rest = length - THIRTY_TWO_BITS_BASE
        at[0] = <uint8_t>(rest >> 24 & 0xFF)
        at[1] = <uint8_t>(rest >> 16 & 0xFF)
        at[2] = <uint8_t>(rest >> 8 & 0xFF)
        at[3] = <uint8_t>(rest & 0xFF)
        at += 4
    at[0] = code
    return at + 1


cdef int append_stream_message(Buffer out, const uint8_t* datagram, Py_ssize_t size, bint has_length) except -1:
    """Append a message that was encoded as a datagram, without its type and message ID. Hot path."""
    cdef uint8_t nibble = datagram[0] & 0x0F
    cdef Py_ssize_t token = nibble, rest = size - HEADER_SIZE, length
    cdef uint8_t* at = out.reserve(STREAM_HEADER_MAX + rest)
    cdef uint8_t* start = at
    if nibble == 13:
        token = 14 + datagram[HEADER_SIZE]
    elif nibble == 14:
        token = 271 + (<Py_ssize_t>datagram[HEADER_SIZE] << 8 | datagram[HEADER_SIZE + 1])
    length = rest - token
    at = put_front(at, length, nibble, datagram[1], has_length)
    memcpy(at, datagram + HEADER_SIZE, <size_t>rest)
    out.size += at + rest - start
    return 0


cdef int append_signal(Buffer out, uint8_t code, Slice token, Slice options_and_payload, bint has_length) except -1:
    """Append a signaling message, whose token has at most 12 bytes and whose options and payload are encoded."""
    cdef uint8_t* at = out.reserve(STREAM_HEADER_MAX + token.size + options_and_payload.size)
    cdef uint8_t* start = at
    at = put_front(at, options_and_payload.size, <uint8_t>token.size, code, has_length)
    if token.size:
        memcpy(at, token.data, <size_t>token.size)
    at += token.size
    if options_and_payload.size:
        memcpy(at, options_and_payload.data, <size_t>options_and_payload.size)
    out.size += at + options_and_payload.size - start
    return 0


# ---------------------------------------------------------------- Python face

cdef object message_of(const uint8_t* data, Py_ssize_t size):
    """Return the Message of these bytes; its type is 4 and its message ID 0."""
    cdef MessageView view
    cdef OptionReader reader
    cdef Slice value
    cdef Format format
    cdef StreamFormat found = read_stream_message(data, size, &view)
    cdef list options = []
    if found != STREAM_MESSAGE:
        raise ProtocolError(STREAM_REASONS[<int>found])
    reader = option_reader(&view)
    while True:
        format = next_option(&reader, &value)
        if format != WELL_FORMED:
            break
        options.append((reader.number, value.data[:value.size] if value.size else b""))
    if FORMAT_REASONS[<int>format]:
        raise ProtocolError(FORMAT_REASONS[<int>format])
    format = take_payload(&reader, &view)
    if format != WELL_FORMED:
        raise ProtocolError(FORMAT_REASONS[<int>format])
    return Message(
        <int>STREAM, view.code, 0, view.token.data[:view.token.size] if view.token.size else b"", tuple(options),
        view.payload.data[:view.payload.size] if view.payload.size else b"",
    )


def decode_stream(bytes data not None):
    """Return the messages at the front of a stream, and the bytes of an incomplete one behind them.

    Raise ProtocolError if a message is malformed.
    """
    cdef const uint8_t* at = <const uint8_t*>data
    cdef Py_ssize_t left = len(data), size
    messages = []
    while True:
        size = size_of_message(at, left)
        if size < 0:
            raise ProtocolError(STREAM_REASONS[<int>STREAM_TOKEN_LENGTH])
        if size == 0 or size > left:
            return messages, at[:left]
        messages.append(message_of(at, size))
        at += size
        left -= size


def encode_stream(message, bint has_length=True):
    """Return the bytes of a Message, whose type and message ID do not matter; see `encode`."""
    cdef bytes datagram = encode(message._replace(type=0, message_id=0))
    cdef Buffer out = Buffer()
    append_stream_message(out, <const uint8_t*>datagram, len(datagram), has_length)
    return out.copy()
