"""A CoAP request with `wait` in its query: the first push for its resource path is its response, or 2.03 at the end.

It waits from when NATS has its message. A confirmable request is acknowledged then, and its response is a separate
confirmable message.

Source: docs/coap.md, "Wait for a push"; RFC 7252 section 5.2.2 (separate responses).
"""

from kaa_gateway.coap.exchanges cimport ACKNOWLEDGED, FORWARDED
from kaa_gateway.coap.options cimport Refusal, Response, location_of, start_response
from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.kp.receipts cimport kept_receipt
from kaa_gateway.kp.waiting cimport Waiting
from kaa_gateway.wire.coap cimport BAD_REQUEST, CON, VALID

cdef Refusal NO_ENDPOINT = Refusal(
    BAD_REQUEST, "coap_wait_without_endpoint", "The extension has no endpoints to wait for"
)

cdef bint prepare_waiting(CoapPeer peer, Exchange exchange, Slice path, double deadline) except -1:
    """Let a request wait as soon as NATS has its message. Return False if too many wait.

    An earlier request of the peer for the same path ends: most likely its device has restarted, and would reject a
    response to it.
    """
    cdef Waiting waiting = Waiting(), earlier
    cdef Exchange other
    waiting.wait_for(peer, path, deadline)
    if peer.waiting is None:
        peer.waiting = []
    for other in peer.waiting:
        earlier = other.waiting
        if earlier.topic == waiting.topic:
            expire(peer, other)
            break
    if not peer.context.waiting.admit(len(peer.waiting)):
        return False
    exchange.waiting = waiting
    peer.waiting.append(exchange)
    return True


cdef int begin_waiting(CoapPeer peer, Exchange exchange) except -1:
    """Let a request wait: NATS has its message."""
    cdef Waiting waiting = exchange.waiting
    peer.context.pending.forget(peer.key, exchange.sequence)
    if not waiting.appear(peer.context.sessions):
        return peer.refuse(exchange, NO_ENDPOINT)
    if peer.context.draining:
        return expire(peer, exchange)
    peer.context.waiting.schedule(exchange, waiting.deadline)
    if exchange.type == CON and exchange.stage == FORWARDED:
        return peer.acknowledge_separately(exchange)
    return 0


cdef bint deliver_to_waiting(CoapPeer peer, Delivery* delivery, Endpoint endpoint) except -1:
    """Respond with a push to the first request that waits for it. Return False if none does."""
    cdef Exchange exchange
    cdef Receipt receipt
    cdef Response response
    for exchange in peer.waiting:
        if (<Waiting>exchange.waiting).matches(delivery.data, endpoint):
            receipt = None
            if exchange.type == CON and exchange.stage == ACKNOWLEDGED:
                receipt = kept_receipt(delivery.receipt)  # a separate response is acknowledged
            peer.start_response_with(exchange, delivery.data, &response)
            response.location = location_of(delivery.data.resource_path)
            peer.respond(exchange, &response)
            if receipt is not None:
                peer.outbox.set_receipt(peer.outbox.last_message_id, receipt)
            return True
    return False


cdef int expire(CoapPeer peer, Exchange exchange) except -1:
    """Respond with 2.03: there was no push."""
    cdef Response response
    start_response(&response, VALID)
    return peer.respond(exchange, &response)


cdef int end_waiting(CoapPeer peer, Exchange exchange) except -1:
    """Stop waiting: the request is answered, or its peer is gone."""
    cdef Waiting waiting = exchange.waiting
    exchange.waiting = None
    peer.context.waiting.remove(exchange)
    peer.waiting.remove(exchange)
    return waiting.disappear(peer.context.sessions)
