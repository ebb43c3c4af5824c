"""The report about a push to one session: `accepted` at once, and its outcome when that is known.

It stands beside the push wherever that waits: in a queue, in flight, in a retransmission timer. A session that
ends lets go of its pushes; a receipt that is freed without an outcome reports `dropped`.

Source: docs/extensions.md, "Receipts".
"""

from kaa_gateway.kp.receipts cimport Receipts

from kaa_gateway.bus import push_receipts

cdef str ACCEPTED = push_receipts.ACCEPTED
cdef str DROPPED = push_receipts.DROPPED


cdef class Receipt:
    """A report that an extension has asked for. Only pushes that are reported have one."""

    cdef int accept(self) except -1:
        """Report that the session has the push, and that an outcome will follow."""
        return (<Receipts>self.receipts).send(
            self.subject, self.push_id, self.endpoint_id, self.session, ACCEPTED, None
        )

    cdef int end(self, str outcome, str reason) except -1:
        """Report the outcome, unless one was reported before."""
        if self.over:
            return 0
        self.over = True
        return (<Receipts>self.receipts).send(
            self.subject, self.push_id, self.endpoint_id, self.session, outcome, reason
        )

    def __del__(self):
        if self.kept and not self.over:
            try:
                self.end(DROPPED, "given_up")
            except RuntimeError:
                pass  # the event loop has ended


cdef class JointReceipt(Receipt):
    """The receipts of several pushes that have one outcome, because one message carries them."""

    cdef int end(self, str outcome, str reason) except -1:
        """Report the outcome of each push."""
        cdef Receipt receipt
        for receipt in self.of_pushes:
            receipt.end(outcome, reason)
        return 0
