"""Several pushes that are answered to one waiting request.

The first push begins a batch. It is complete when it has as many pushes as were asked for or BATCH_SIZE bytes, or
BATCH_TIME after the first push.

Source: docs/devices.md, "Several pushes in one response".
"""

from kaa_gateway.kp.push_json cimport encode_push
from kaa_gateway.kp.receipt cimport JointReceipt
from kaa_gateway.kp.receipts cimport kept_receipt

cdef enum:
    BATCH_SIZE = 64 * 1024    # bytes; the push that reaches them is the last one

cdef double BATCH_TIME = 0.1  # seconds


cdef class PushBatch:
    """The pushes for one request, in the order in which they have come."""

    cdef bint add(self, const Delivery* delivery) except -1:
        """Add a push. Return whether the batch is complete."""
        cdef bytes push = encode_push(delivery.data)
        self.pushes.append(push)
        self.size += len(push)
        if delivery.receipt != NULL:
            self.receipts.append(kept_receipt(delivery.receipt))
        return len(self.pushes) >= self.pushes_max or self.size >= BATCH_SIZE

    cdef bytes body(self):
        """Return the pushes as a JSON array."""
        return b"[" + b",".join(self.pushes) + b"]"

    cdef Receipt receipt(self):
        """Return the receipt of all pushes together, or None if no extension wants one."""
        cdef JointReceipt receipt
        if not self.receipts:
            return None
        receipt = JointReceipt()
        receipt.of_pushes = self.receipts
        return receipt


cdef PushBatch begin_batch(int pushes_max, object loop, object on_time):
    """Return an empty batch. `on_time` is called when its time is over, unless its timer is cancelled before."""
    cdef PushBatch batch = PushBatch()
    batch.pushes_max = pushes_max
    batch.pushes = []
    batch.receipts = []
    batch.timer = loop.call_later(BATCH_TIME, on_time)
    return batch
