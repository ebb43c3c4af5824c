"""The requests of a CoAP peer that have a body in blocks, or ask for a further block of a response.

The tables of bodies are in blocks.pyx.

Source: RFC 7959.
"""

from libc.stdint cimport int64_t

from kaa_gateway.coap.blocks cimport BLOCKS_MISSING, NO_BLOCK_MEMORY, REPEATED, BlockResult, Body
from kaa_gateway.coap.context cimport CoapContext
from kaa_gateway.coap.options cimport Response, start_response
from kaa_gateway.coap.refusals cimport INCOMPLETE, NO_BLOCK, NO_BODY, NO_MEMORY, SHORT_BLOCK, TOO_LARGE
from kaa_gateway.wire.buffer cimport Buffer
from kaa_gateway.wire.coap cimport ACK, BERT, CON, CONTINUE, Block, block_offset


cdef inline bint is_whole(Block block, Py_ssize_t size) noexcept nogil:
    """Return whether a block that is not the last has its whole size."""
    if block.szx == BERT:
        return size > 0 and size % 1024 == 0
    return size == 16 << block.szx


cdef int receive_block(CoapPeer peer, Exchange exchange, const Request* request, Slice payload, double now) except -1:
    """Add a block to a request's body, and forward the body with its last block."""
    cdef CoapContext context = peer.context
    cdef int64_t offset = block_offset(request.block1)
    cdef BlockResult result
    cdef Response response
    cdef bytes key, token
    cdef Body body
    cdef Buffer content
    if request.block1.more and not is_whole(request.block1, payload.size):
        return peer.refuse(exchange, SHORT_BLOCK)
    if request.size1 > context.body_size_max or offset + payload.size > context.body_size_max:
        return peer.refuse(exchange, TOO_LARGE)
    if offset == 0 and not request.block1.more:
        return peer.forward(exchange, payload, now)
    key = exchange.transfer_key.copy()
    token = exchange.token_bytes[:exchange.token_size]
    result = context.requests.add_block(peer, key, token, request.block1, payload, now)
    if result == BLOCKS_MISSING or result == NO_BLOCK_MEMORY:
        return peer.refuse(exchange, INCOMPLETE if result == BLOCKS_MISSING else NO_MEMORY)
    if request.block1.more:
        start_response(&response, CONTINUE)
        return peer.respond(exchange, &response)
    body = context.requests.current
    if result == REPEATED:
        return repeat_upload(peer, exchange, body)
    content = context.requests.take_content(body)
    exchange.upload = body
    return peer.forward(exchange, Slice(content.data, content.size), now)


cdef int repeat_upload(CoapPeer peer, Exchange exchange, Body request) except -1:
    """Respond to the repeated last block of a body as before; it has its effect once."""
    cdef Response response
    if request.code == 0:
        # The response to the first one will come.
        peer.complete(exchange, Slice(NULL, 0))
        return peer.outbox.send_empty(ACK, exchange.message_id) if exchange.type == CON else 0
    start_response(&response, request.code)
    response.body = Slice(request.content.data, request.content.size)
    response.content_format = request.content_format
    return peer.respond(exchange, &response)


cdef int send_next_block(CoapPeer peer, Exchange exchange, const Request* request, double now) except -1:
    """Respond with a further block of a response that was kept."""
    cdef Body body = peer.context.responses.find_response(
        peer, exchange.transfer_key.copy(), exchange.token_bytes[:exchange.token_size], now
    )
    cdef Response response
    if body is None:
        return peer.refuse(exchange, NO_BODY)
    start_response(&response, body.code)
    body.select_block(request.block2, &response)
    if response.offset >= response.body.size:
        return peer.refuse(exchange, NO_BLOCK)
    return peer.respond(exchange, &response)
