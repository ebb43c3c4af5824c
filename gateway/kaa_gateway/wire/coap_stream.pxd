from libc.stdint cimport uint8_t

from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport MessageView

cdef enum:
    STREAM_HEADER_MAX = 6    # bytes of the length and the code
    # Option numbers of signaling messages, which differ by code (RFC 8323 section 5).
    MAX_MESSAGE_SIZE = 2     # of CSM
    BLOCK_WISE_TRANSFER = 4
    EXTENDED_TOKEN_LENGTH = 6  # RFC 8974 section 2.2.2
    CUSTODY = 2              # of Ping and Pong
    ALTERNATIVE_ADDRESS = 2  # of Release
    BAD_CSM_OPTION = 2       # of Abort


# The result of reading the front of a stream. STREAM_REASONS in coap_stream.pyx follows this order.
cdef enum StreamFormat:
    STREAM_MESSAGE = 0
    STREAM_INCOMPLETE     # more bytes are needed
    STREAM_TOKEN_LENGTH
    STREAM_TRUNCATED      # a whole message that ends within its token
    STREAM_LENGTH         # a message of a WebSocket that has a length of its own


cdef Py_ssize_t size_of_message(const uint8_t* data, Py_ssize_t size) noexcept nogil
cdef StreamFormat read_stream_message(const uint8_t* data, Py_ssize_t size, MessageView* view) noexcept nogil
cdef int append_stream_message(Buffer out, const uint8_t* datagram, Py_ssize_t size, bint has_length) except -1
cdef int append_signal(Buffer out, uint8_t code, Slice token, Slice options_and_payload, bint has_length) except -1
