"""A request with `wait` and `batch` in its query: one response has the pushes that come within a moment.

The first push begins the batch. It is answered when it has as many pushes as were asked for or BATCH_SIZE bytes, or
BATCH_TIME after the first push.

Source: docs/devices.md, "Several pushes in one response".
"""

from kaa_gateway.http.connection cimport HttpConnection
from kaa_gateway.http.push_json cimport encode_push
from kaa_gateway.http.response cimport append_json
from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.kp.receipts cimport kept_receipt
from kaa_gateway.kp.session cimport Delivery, Endpoint

from kaa_gateway.bus.push_receipts import SENT

cdef enum:
    BATCH_SIZE = 64 * 1024    # bytes; the push that reaches them is the last one

cdef double BATCH_TIME = 0.1  # seconds


cdef class PushBatch(WaitingRequest):
    """The request of a connection that waits for several pushes."""

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Add a push. Return False if it is for another resource path."""
        cdef bytes push
        if not self.matches(delivery.data, endpoint):
            return False
        if self.timer is None:
            self.pushes = []
            self.receipts = []
            self.timer = self.connection.server.loop.call_later(BATCH_TIME, self.on_time)
        push = encode_push(delivery.data)
        self.pushes.append(push)
        self.size += len(push)
        if delivery.receipt != NULL:
            self.receipts.append(kept_receipt(delivery.receipt))
        if len(self.pushes) >= self.pushes_max or self.size >= BATCH_SIZE:
            self.answer()
        return True

    def on_time(self):
        """Answer with the pushes that have come."""
        if self.connection is not None:
            self.answer()

    cdef int answer(self) except -1:
        """Answer with the pushes, in the order in which they have come."""
        cdef HttpConnection connection = self.connection
        cdef Receipt receipt
        cdef bytes body = b"[" + b",".join(self.pushes) + b"]"
        connection.stop_waiting(self.number)
        append_json(
            connection.buffer_of(self.number), body, connection.persistence(self.number),
            connection.requests.take_cors(self.number),
        )
        connection.send_in_order(self.number)
        for receipt in self.receipts:
            receipt.end(SENT, None)
        return 0

    cdef int expire(self) except -1:
        """Answer with the pushes that have come, or with 204."""
        return WaitingRequest.expire(self) if self.timer is None else self.answer()

    cdef int cancel(self) except -1:
        if self.timer is not None:
            self.timer.cancel()
        return WaitingRequest.cancel(self)
