"""A request with `wait` and `batch` in its query: one response has the pushes that come within a moment.

Source: docs/devices.md, "Several pushes in one response".
"""

from kaa_gateway.http.connection cimport HttpConnection
from kaa_gateway.http.response cimport append_json
from kaa_gateway.kp.push_batch cimport begin_batch
from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.kp.session cimport Delivery, Endpoint

from kaa_gateway.bus.push_receipts import SENT


cdef class BatchRequest(WaitingRequest):
    """The request of a connection that waits for several pushes."""

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Add a push. Return False if it is for another resource path."""
        if not self.matches(delivery.data, endpoint):
            return False
        if self.pushes is None:
            self.pushes = begin_batch(self.pushes_max, self.connection.server.loop, self.on_time)
        if self.pushes.add(delivery):
            self.answer()
        return True

    def on_time(self):
        """Answer with the pushes that have come."""
        if self.connection is not None:
            self.answer()

    cdef int answer(self) except -1:
        """Answer with the pushes."""
        cdef HttpConnection connection = self.connection
        cdef Receipt receipt = self.pushes.receipt()
        connection.stop_waiting(self.number)
        append_json(
            connection.buffer_of(self.number), self.pushes.body(), connection.persistence(self.number),
            connection.requests.take_cors(self.number),
        )
        connection.send_in_order(self.number)
        return 0 if receipt is None else receipt.end(SENT, None)

    cdef int expire(self) except -1:
        """Answer with the pushes that have come, or with 204."""
        return WaitingRequest.expire(self) if self.pushes is None else self.answer()

    cdef int cancel(self) except -1:
        if self.pushes is not None:
            self.pushes.timer.cancel()
        return WaitingRequest.cancel(self)
