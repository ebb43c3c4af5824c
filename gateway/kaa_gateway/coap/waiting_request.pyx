"""A CoAP request with `wait` in its query: the first push for its resource path is its response, or 2.03 at the end.

It waits from when NATS has its message. A confirmable request is acknowledged then, and its response is a separate
confirmable message. With `batch` in its query too, the response has the pushes that come within a moment.

Source: docs/coap.md, "Wait for a push"; RFC 7252 section 5.2.2 (separate responses).
"""

from kaa_gateway.coap.exchanges cimport ACKNOWLEDGED, FORWARDED
from kaa_gateway.coap.options cimport JSON, Response, code_of_status, location_of, start_response
from kaa_gateway.coap.refusals cimport NO_ENDPOINT
from kaa_gateway.kp.push_batch cimport PushBatch, begin_batch
from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.kp.receipts cimport kept_receipt
from kaa_gateway.kp.waiting cimport Waiting
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.coap cimport CON, VALID
from kaa_gateway.wire.query cimport NO_BATCH

from kaa_gateway.bus.push_receipts import SENT

cdef enum:
    OK = 200


cdef class WaitingForSeveral(Waiting):
    """The wait of a request that takes several pushes."""
    # wiring
    cdef CoapPeer peer
    cdef Exchange exchange    # None once it is answered
    # state
    cdef PushBatch pushes     # None before the first

    def on_time(self):
        """Respond with the pushes that have come."""
        if self.exchange is not None:
            respond_with_batch(self.peer, self.exchange, self.pushes)

    cdef int add(self, Delivery* delivery) except -1:
        """Add a push, and respond if it is the last one."""
        if self.pushes is None:
            self.pushes = begin_batch(self.exchange.batch, self.peer.context.uplink.link.loop, self.on_time)
        return respond_with_batch(self.peer, self.exchange, self.pushes) if self.pushes.add(delivery) else 0


cdef Waiting new_waiting(CoapPeer peer, Exchange exchange):
    cdef WaitingForSeveral waiting
    if not exchange.batch:
        return Waiting()
    waiting = WaitingForSeveral()
    waiting.peer = peer
    waiting.exchange = exchange
    return waiting


cdef bint prepare_waiting(CoapPeer peer, Exchange exchange, Slice path, double deadline) except -1:
    """Let a request wait as soon as NATS has its message. Return False if too many wait.

    An earlier request of the peer for the same path ends: most likely its device has restarted, and would reject a
    response to it.
    """
    cdef Waiting waiting = new_waiting(peer, exchange)
    cdef Exchange other = peer.waiting
    cdef Py_ssize_t count = 0
    waiting.wait_for(peer, path, deadline)
    while other is not None and (<Waiting>other.waiting).topic != waiting.topic:
        other = other.next_waiting
    if other is not None:
        expire(peer, other)
    other = peer.waiting
    while other is not None:
        count += 1
        other = other.next_waiting
    if not peer.context.waiting.admit(count):
        return False
    exchange.waiting = waiting
    exchange.next_waiting = peer.waiting
    peer.waiting = exchange
    return True


cdef int begin_waiting(CoapPeer peer, Exchange exchange) except -1:
    """Let a request wait: NATS has its message."""
    cdef Waiting waiting = exchange.waiting
    peer.context.pending.forget(peer.key, exchange.sequence)
    if not waiting.appear(peer.context.sessions):
        return peer.refuse(exchange, NO_ENDPOINT)
    if peer.context.draining:
        return expire(peer, exchange)
    if exchange.type == CON and exchange.stage == FORWARDED:
        peer.acknowledge_separately(exchange)
    return peer.context.waiting.schedule(exchange, waiting.deadline)


cdef bint deliver_to_waiting(CoapPeer peer, Delivery* delivery, Endpoint endpoint) except -1:
    """Respond with a push to a request that waits for it. Return False if none does."""
    cdef Exchange exchange = peer.waiting
    cdef Response response
    while exchange is not None and not (<Waiting>exchange.waiting).matches(delivery.data, endpoint):
        exchange = exchange.next_waiting
    if exchange is None:
        return False
    if exchange.batch:
        (<WaitingForSeveral>exchange.waiting).add(delivery)
        return True
    peer.start_response_with(exchange, delivery.data, &response)
    response.location = location_of(delivery.data.resource_path)
    respond(peer, exchange, &response, kept_receipt(delivery.receipt))
    return True


cdef int respond_with_batch(CoapPeer peer, Exchange exchange, PushBatch pushes) except -1:
    """Respond with several pushes, as a JSON array."""
    cdef Response response
    cdef bytes body = pushes.body()
    start_response(&response, code_of_status(OK, exchange.method))
    response.body = slice_of(body)
    response.content_format = JSON
    return respond(peer, exchange, &response, pushes.receipt())


cdef int respond(CoapPeer peer, Exchange exchange, Response* response, Receipt receipt) except -1:
    """Send a response, and report its outcome: a separate confirmable one is acknowledged."""
    cdef bint acknowledged = exchange.type == CON and exchange.stage == ACKNOWLEDGED
    peer.respond(exchange, response)
    if receipt is None:
        return 0
    return peer.outbox.set_receipt(peer.outbox.last_message_id, receipt) if acknowledged else receipt.end(SENT, None)


cdef int expire(CoapPeer peer, Exchange exchange) except -1:
    """Respond with 2.03, as there was no push; or with the pushes that have come, if it takes several."""
    cdef Response response
    cdef PushBatch pushes = (<WaitingForSeveral>exchange.waiting).pushes if exchange.batch else None
    if pushes is not None:
        return respond_with_batch(peer, exchange, pushes)
    start_response(&response, VALID)
    return peer.respond(exchange, &response)


cdef int end_waits_for(CoapPeer peer, Attachment attachment) except -1:
    """End the waits for pushes to the endpoint of an attachment; None ends all."""
    cdef Exchange exchange = peer.waiting, following
    while exchange is not None:
        following = exchange.next_waiting
        if attachment is None or (<Waiting>exchange.waiting).attachment is attachment:
            expire(peer, exchange)
        exchange = following
    return 0


cdef int end_waiting(CoapPeer peer, Exchange exchange) except -1:
    """Stop waiting: the request is answered, or its peer is gone."""
    cdef Waiting waiting = exchange.waiting
    cdef Exchange before = peer.waiting
    if exchange.batch:
        exchange.batch = NO_BATCH
        end_batch(<WaitingForSeveral>waiting)
    exchange.waiting = None
    peer.context.waiting.remove(exchange)
    if before is exchange:
        peer.waiting = exchange.next_waiting
    else:
        while before.next_waiting is not exchange:
            before = before.next_waiting
        before.next_waiting = exchange.next_waiting
    exchange.next_waiting = None
    return waiting.disappear(peer.context.sessions)


cdef int end_batch(WaitingForSeveral waiting) except -1:
    if waiting.pushes is not None:
        waiting.pushes.timer.cancel()
    waiting.exchange = None
    return 0
