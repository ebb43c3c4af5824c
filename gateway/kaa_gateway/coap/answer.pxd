from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport Block, Type

cdef enum:
    SZX_MAX = 6        # blocks of at most 1024 bytes (RFC 7959 section 2.2)
    JSON = 50          # Content-Format of application/json
    PHRASE_SIZE_MAX = 512  # bytes of a diagnostic payload


cdef struct Answer:
    # A response or notification before it is a message. -1 is absent; slices are borrowed.
    uint8_t code
    Slice body
    int64_t offset       # of the block in the body
    int szx              # size of that block; what is cut is announced by Block2
    bint has_block2      # even if nothing is cut: the client named a size
    int content_format
    int64_t observe
    int max_age          # seconds
    bint has_block1
    Block block1
    int64_t size1
    Slice etag           # data NULL if absent
    Slice echo


cdef inline Slice octets(bytes text) noexcept:
    # Borrowed from the object, which the caller holds.
    return Slice(<const uint8_t*>text, len(text))


cdef void start_answer(Answer* answer, uint8_t code) noexcept nogil
cdef uint8_t code_of_status(int status, uint8_t method) noexcept nogil
cdef bint is_cut(const Answer* answer) noexcept nogil
cdef int append_answer(Buffer out, Type type, uint16_t message_id, Slice token, const Answer* answer) except -1
cdef bint fit_answer(
    Buffer out, Type type, uint16_t message_id, Slice token, Answer* answer, int64_t size_max
) except -1
cdef int content_format(int accept) noexcept nogil
