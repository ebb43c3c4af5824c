from libc.stdint cimport int64_t, uint8_t

from kaa_gateway.coap.options cimport Response
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport Block


# What became of a block of a request body.
cdef enum BlockResult:
    ADDED
    REPEATED             # the last block of a body that was whole before
    BLOCKS_MISSING       # those before it
    NO_BLOCK_MEMORY


cdef class Body:
    # The body of a request that is being assembled, or of a response that is fetched block by block.
    # wiring
    cdef object peer             # CoapPeer
    # state
    cdef bytes transfer_key      # method, Request-Tag and path
    cdef bytes token             # of its first block
    cdef Buffer content
    cdef double deadline         # loop time
    # of a request
    cdef bint whole              # it was forwarded; `content` is that of its response from here on
    cdef int64_t last_offset     # of its last block so far
    cdef bytes last_block
    # of a response
    cdef uint8_t code            # 0 if there is none yet
    cdef int content_format
    cdef bytes etag

    cdef void select_block(self, Block block, Response* response) noexcept


cdef class BodyTable:
    # settings
    cdef Py_ssize_t bytes_max
    cdef Py_ssize_t bodies_max
    cdef Py_ssize_t per_peer_max
    cdef double lifetime         # seconds after the last use
    # state
    cdef object bodies           # OrderedDict of Body -> None, the longest unused first
    cdef dict per_peer           # peer -> {(transfer key, token): Body}, the oldest first
    cdef Body current            # that the last block was added to
    cdef object whole            # OrderedDict of those of them that are requests and whole, the longest whole first
    cdef readonly Py_ssize_t bytes

    cdef BlockResult add_block(
        self, object peer, bytes transfer_key, bytes token, Block block, Slice payload, double now
    ) except <BlockResult>-1
    cdef Buffer take_content(self, Body body)
    cdef Body find_request(self, object peer, bytes transfer_key, bytes token, int64_t offset, Slice payload)
    cdef int keep_response_to(self, Body request, const Response* response) except -1
    cdef Body keep(self, object peer, bytes transfer_key, bytes token, const Response* response, double now)
    cdef Body find_response(self, object peer, bytes transfer_key, bytes token, double now)
    cdef int remove(self, Body body) except -1
    cdef int remove_all(self, object peer) except -1
    cdef int expire(self, double now) except -1

    cdef int use(self, Body body, double now) except -1
    cdef Body open(self, object peer, bytes transfer_key, bytes token, double now, bint replaces_oldest)
    cdef bint append(self, Body body, Slice data) except -1
    cdef bint make_room(self, Py_ssize_t size) except -1


cdef bytes etag_of(Slice body)
