from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from kaa_gateway.wire.buffer cimport Buffer, Slice

cdef enum:
    HEADER_SIZE = 4        # bytes
    TOKEN_SIZE_MAX = 65804  # bytes; more than 12 only with an extended length (RFC 8974)
    OPTION_NUMBER_MAX = 65535
    PAYLOAD_MARKER = 0xFF
    ONE_BYTE_BASE = 13     # of an option delta or length that is extended by one byte
    TWO_BYTE_BASE = 269
    BERT = 7               # block size of several blocks of 1024 bytes, over reliable transports only


cdef enum Type:
    CON = 0
    NON = 1
    ACK = 2
    RST = 3
    STREAM = 4      # over a reliable transport messages have no type (RFC 8323)


# Codes are class << 5 | detail (RFC 7252 section 12.1; RFC 7959; RFC 8132; RFC 8516).
cdef enum Code:
    EMPTY = 0
    GET = 1
    POST = 2
    PUT = 3
    FETCH = 5
    CREATED = 0x41
    VALID = 0x43
    CHANGED = 0x44
    CONTENT = 0x45
    CONTINUE = 0x5F
    BAD_REQUEST = 0x80
    UNAUTHORIZED = 0x81
    BAD_OPTION = 0x82
    NOT_FOUND = 0x84
    METHOD_NOT_ALLOWED = 0x85
    NOT_ACCEPTABLE = 0x86
    REQUEST_ENTITY_INCOMPLETE = 0x88
    REQUEST_ENTITY_TOO_LARGE = 0x8D
    TOO_MANY_REQUESTS = 0x9D             # RFC 8516
    INTERNAL_SERVER_ERROR = 0xA0
    SERVICE_UNAVAILABLE = 0xA3
    PROXYING_NOT_SUPPORTED = 0xA5
    CSM = 0xE1                           # signaling (RFC 8323 section 5)
    SIGNAL_PING = 0xE2
    SIGNAL_PONG = 0xE3
    RELEASE = 0xE4
    ABORT = 0xE5


# Option numbers (RFC 7252 section 5.10; 7641; 7959; 7967; 9175).
cdef enum OptionNumber:
    IF_MATCH = 1
    URI_HOST = 3
    ETAG = 4
    OBSERVE = 6
    URI_PORT = 7
    LOCATION_PATH = 8
    URI_PATH = 11
    CONTENT_FORMAT = 12
    MAX_AGE = 14
    URI_QUERY = 15
    ACCEPT = 17
    BLOCK2 = 23
    BLOCK1 = 27
    SIZE2 = 28
    PROXY_URI = 35
    PROXY_SCHEME = 39
    SIZE1 = 60
    ECHO = 252
    NO_RESPONSE = 258
    REQUEST_TAG = 292


# The result of decoding. FORMAT_REASONS in coap.pyx follows this order.
cdef enum Format:
    WELL_FORMED = 0
    TOO_SHORT           # for a header: the message cannot even be rejected
    UNKNOWN_VERSION
    BAD_TOKEN_LENGTH    # from here on type and message ID are valid
    TRUNCATED_TOKEN
    NOT_EMPTY
    BAD_OPTION_HEADER
    TRUNCATED_OPTION
    BAD_OPTION_NUMBER
    EMPTY_PAYLOAD
    NO_OPTION           # no error: there are no more options


cdef struct MessageView:
    # Slices borrow from the datagram.
    Type type
    uint8_t code
    uint16_t message_id
    Slice token
    Slice options     # encoded; read them with option_reader and next_option
    Slice payload


cdef struct OptionReader:
    # The unread rest of a message's options, [at, end), and the number of the last one read.
    const uint8_t* at
    const uint8_t* end
    uint32_t number


cdef struct Block:
    # The value of Block1 and Block2 (RFC 7959 section 2.2); a block has 16 << szx bytes.
    uint32_t number
    bint more
    int szx


cdef Format read_header(const uint8_t* data, Py_ssize_t size, MessageView* view) noexcept nogil
cdef Format read_message(const uint8_t* data, Py_ssize_t size, MessageView* view) noexcept nogil

cdef int append_header(Buffer out, Type type, uint8_t code, uint16_t message_id, Slice token) except -1
cdef int append_option(Buffer out, uint32_t previous, uint32_t number, Slice value) except -1
cdef int append_uint_option(Buffer out, uint32_t previous, uint32_t number, uint32_t value) except -1
cdef int append_payload(Buffer out, Slice payload) except -1


cdef inline Format read_token(int nibble, const uint8_t* at, const uint8_t* end, Slice* token) noexcept nogil:
    # Read a token whose length begins with the nibble TKL (RFC 8974 section 2.1). Hot path.
    cdef Py_ssize_t size = nibble
    if nibble >= ONE_BYTE_BASE:
        if nibble == 15:
            return BAD_TOKEN_LENGTH
        if end - at < nibble - 12:
            return TRUNCATED_TOKEN
        if nibble == 13:
            size = ONE_BYTE_BASE + at[0]
        else:
            size = TWO_BYTE_BASE + (<Py_ssize_t>at[0] << 8 | at[1])
        at += nibble - 12
    if size > end - at:
        return TRUNCATED_TOKEN
    token[0] = Slice(at, size)
    return WELL_FORMED


cdef inline OptionReader option_reader(const MessageView* view) noexcept nogil:
    return OptionReader(view.options.data, view.options.data + view.options.size, 0)


cdef inline bint take_extended(OptionReader* reader, uint32_t* value) noexcept nogil:
    # Replace a nibble of a delta or length by its full value; False if bytes are missing. The caller rejects 15.
    if value[0] < ONE_BYTE_BASE:
        return True
    if value[0] == ONE_BYTE_BASE:
        if reader.end - reader.at < 1:
            return False
        value[0] = ONE_BYTE_BASE + reader.at[0]
        reader.at += 1
        return True
    if reader.end - reader.at < 2:
        return False
    value[0] = TWO_BYTE_BASE + (<uint32_t>reader.at[0] << 8 | reader.at[1])
    reader.at += 2
    return True


cdef inline Format next_option(OptionReader* reader, Slice* value) noexcept nogil:
    # Read an option, whose number is then the reader's; NO_OPTION at the end or the payload marker. Hot path.
    cdef uint32_t delta, length
    if reader.at >= reader.end or reader.at[0] == PAYLOAD_MARKER:
        return NO_OPTION
    delta = reader.at[0] >> 4
    length = reader.at[0] & 0x0F
    if delta == 15 or length == 15:
        return BAD_OPTION_HEADER
    reader.at += 1
    if not take_extended(reader, &delta) or not take_extended(reader, &length):
        return TRUNCATED_OPTION
    if length > reader.end - reader.at:
        return TRUNCATED_OPTION
    reader.number += delta
    if reader.number > OPTION_NUMBER_MAX:
        return BAD_OPTION_NUMBER
    value.data = reader.at
    value.size = length
    reader.at += length
    return WELL_FORMED


cdef inline Format take_payload(const OptionReader* reader, MessageView* view) noexcept nogil:
    # Set the payload of the view to what follows the options.
    if reader.at < reader.end:
        view.payload = Slice(reader.at + 1, reader.end - reader.at - 1)
        if view.payload.size == 0:
            return EMPTY_PAYLOAD
    return WELL_FORMED


cdef inline uint32_t read_uint(Slice value) noexcept nogil:
    # Return an option value of format uint of at most four bytes (RFC 7252 section 3.2).
    cdef uint32_t result = 0
    cdef Py_ssize_t i
    for i in range(value.size):
        result = result << 8 | value.data[i]
    return result


cdef inline Block read_block(Slice value) noexcept nogil:
    cdef uint32_t bits = read_uint(value)
    return Block(bits >> 4, (bits & 8) != 0, <int>(bits & 7))


cdef inline int64_t block_offset(Block block) noexcept nogil:
    # Return where a block begins; one of BERT consists of blocks of 1024 bytes (RFC 8323 section 6).
    return <int64_t>block.number << ((6 if block.szx == BERT else block.szx) + 4)


cdef inline uint32_t block_value(Block block) noexcept nogil:
    return block.number << 4 | (8 if block.more else 0) | <uint32_t>block.szx
