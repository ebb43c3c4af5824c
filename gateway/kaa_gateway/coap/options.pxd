from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport Block, Format, MessageView, Type
from kaa_gateway.wire.query cimport Query

cdef enum:
    SZX_MAX = 6                   # blocks of at most 1024 bytes (RFC 7959 section 2.2)
    WHOLE_SZX = 26                # of a body that a stream carries in one message: 1 GiB, more than there can be
    LINK_FORMAT = 40              # Content-Format of application/link-format
    DIAGNOSTIC_SIZE_MAX = 512     # bytes of a diagnostic payload
    ETAG_SIZE = 4                 # bytes of ours
    JSON = 50                     # Content-Format of application/json
    ETAGS_MAX = 8                 # of a request that are looked at


cdef class Refusal:
    # An error response of the gateway's own.
    cdef uint8_t code
    cdef str reason          # the label in metrics
    cdef bytes diagnostic    # payload


# Why the options of a request cannot be served.
cdef enum OptionFault:
    NO_FAULT
    CRITICAL_OPTION          # unknown, repeated, or of a wrong length
    PROXYING
    MALFORMED_PATH
    RESERVED_BLOCK_SIZE


cdef struct Request:
    # What the options of a request say. Slices borrow from the datagram; -1 stands for an absent option.
    OptionFault fault
    bint over_stream     # where a block may consist of several ones (BERT)
    int accept
    int observe
    int no_response
    Query query
    int64_t size1
    bint has_block1
    Block block1
    bint has_block2
    Block block2
    Slice echo           # data NULL if absent
    Slice request_tag
    int etag_count       # ETags that may be ours
    uint32_t[ETAGS_MAX] etags


cdef struct Response:
    # A response or notification before it is encoded. Slices are borrowed; -1 stands for an absent option.
    uint8_t code
    Slice body
    int64_t offset       # of the block in the body
    int szx              # size of the block; Block2 announces that a body was cut
    bint has_block2      # send Block2 even if the body is not cut: the client named a size
    int content_format
    int64_t observe
    int max_age          # seconds
    bint has_block1
    Block block1
    int64_t size1
    Slice etag           # data NULL if absent
    bint kept            # the other blocks of its body can be fetched
    Slice location       # resource path of a push to a waiting request; its levels become Location-Path
    Slice echo


cdef inline bint is_cut(const Response* response) noexcept nogil:
    # Return whether the body needs more than this block. Hot path.
    return response.offset > 0 or response.body.size > (16 << response.szx)


cdef inline Slice cut_diagnostic(Slice phrase) noexcept nogil:
    # Return the beginning of a phrase that a diagnostic payload may have, without part of a UTF-8 character.
    cdef Py_ssize_t size = phrase.size
    if size > DIAGNOSTIC_SIZE_MAX:
        size = DIAGNOSTIC_SIZE_MAX
        while size > 0 and phrase.data[size] & 0xC0 == 0x80:
            size -= 1
    return Slice(phrase.data, size)


cdef Format read_request(MessageView* view, Buffer path, Request* request) except <Format>-1
cdef tuple queries_of(const MessageView* view)
cdef Refusal refusal_for(OptionFault fault)

cdef uint8_t code_of_status(int status, uint8_t method) noexcept nogil
cdef Slice location_of(Slice path) noexcept
cdef int format_of_payload(int accept) noexcept nogil
cdef bint is_known_format(int accept) noexcept nogil
cdef void start_response(Response* response, uint8_t code) noexcept nogil
cdef bint encode_response(
    Buffer out, Type type, uint16_t message_id, Slice token, Response* response, int64_t size_max
) except -1
