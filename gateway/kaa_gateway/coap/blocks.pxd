from libc.stdint cimport uint8_t, uint32_t

from kaa_gateway.coap.options cimport Response
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport Block


# What became of a block of a request body.
cdef enum BlockResult:
    ADDED
    BLOCKS_MISSING       # those before it
    NO_BLOCK_MEMORY


cdef class Body:
    # The body of a request that is being assembled, or of a response that is fetched block by block.
    # wiring
    cdef object peer             # CoapPeer
    # state
    cdef bytes transfer_key      # method, Request-Tag and path
    cdef Buffer content
    cdef double deadline         # loop time
    # of a response
    cdef uint8_t code
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
    cdef object bodies           # OrderedDict of (peer, transfer key) -> Body, the longest unused first
    cdef dict per_peer           # peer -> {transfer key: None}, the oldest first
    cdef uint32_t etag           # of the last response
    cdef readonly Py_ssize_t bytes

    cdef BlockResult add_block(
        self, object peer, bytes transfer_key, Block block, Slice payload, double now
    ) except <BlockResult>-1
    cdef Body take(self, object peer, bytes transfer_key)
    cdef Body keep(self, object peer, bytes transfer_key, const Response* response, double now)
    cdef Body find(self, object peer, bytes transfer_key, double now)
    cdef int remove(self, Body body) except -1
    cdef int remove_all(self, object peer) except -1
    cdef int expire(self, double now) except -1

    cdef Body open(self, object peer, bytes transfer_key, double now)
    cdef bint append(self, Body body, Slice data) except -1
    cdef bint make_room(self, Py_ssize_t size) except -1
