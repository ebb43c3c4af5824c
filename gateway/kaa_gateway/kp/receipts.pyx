"""The receipts of one worker: reads who wants them, and publishes them.

A push without the header costs one comparison. What lives elsewhere: the report about one session (receipt.pyx), the
message and its words (kaa_gateway.bus.push_receipts).

Source: docs/extensions.md, "Receipts".
"""

import re

from kaa_gateway.wire.buffer cimport slice_of, to_bytes
from kaa_gateway.wire.nats cimport header_value

from kaa_gateway.bus import push_receipts
from kaa_gateway.wire.nats import encode_publish_head

cdef enum:
    PUSH_ID_SIZE_MAX = 128       # bytes
    ENDPOINT_ID_SIZE_MAX = 1024  # bytes

RECEIPT_SUBJECT = re.compile(push_receipts.RECEIPT_SUBJECT.encode())

cdef bytes HEADER = push_receipts.RECEIPT_HEADER.encode()
cdef str NO_SESSION = push_receipts.NO_SESSION


cdef class ReceiptRequest:
    """A push whose extension wants receipts."""

    cdef Receipt receipt_of(self, uint64_t session):
        """Return a receipt for a session that may take the push."""
        return self.receipts.restore(self.subject, self.push_id, self.endpoint_id, f"{session:x}")

    cdef int refuse(self, str outcome, str reason) except -1:
        """Report that no session has taken the push, unless one has said why."""
        if self.answered:
            return 0
        return self.receipts.send(self.subject, self.push_id, self.endpoint_id, None, outcome, reason)


cdef class Receipts:
    """Publishes the receipts of a worker over its link."""

    def __init__(self, Link link not None, Counters counters not None, str replica_id not None):
        self.link = link
        self.counters = counters
        self.replica_id = replica_id

    cdef ReceiptRequest read_request(self, Slice header, const ExtensionDataView* push):
        """Return the wish in the NATS header of a push, or None."""
        cdef Slice subject = header_value(header, HEADER)
        cdef ReceiptRequest request
        if subject.data == NULL:
            return None
        if push.correlation_id.size > PUSH_ID_SIZE_MAX or push.endpoint_id.size > ENDPOINT_ID_SIZE_MAX \
                or not RECEIPT_SUBJECT.match(to_bytes(subject)):
            self.counters.count("dropped", "receipt_malformed")
            return None
        request = ReceiptRequest()
        request.receipts = self
        request.subject = to_bytes(subject)
        request.push_id = to_bytes(push.correlation_id).decode("utf-8", "replace")
        request.endpoint_id = "" if push.endpoint_id.data == NULL \
            else to_bytes(push.endpoint_id).decode("utf-8", "replace")
        return request

    cdef Receipt restore(self, bytes subject, str push_id, str endpoint_id, str session):
        """Return a receipt with these fields: a new one, or that of a push which has come with its session."""
        cdef Receipt receipt = Receipt()
        receipt.receipts = self
        receipt.subject = subject
        receipt.push_id = push_id
        receipt.endpoint_id = endpoint_id
        receipt.session = session
        return receipt

    cdef int send(
        self, bytes subject, str push_id, str endpoint_id, str session, str outcome, str reason
    ) except -1:
        """Publish a receipt. It is dropped if the backlog to NATS is full."""
        cdef bytes datum
        if self.link.full:
            return self.counters.count("dropped", "receipt_backlog")
        datum = push_receipts.PUSH_RECEIPT.encode(
            correlation_id=push_id, endpointId=endpoint_id, gatewayReplicaId=self.replica_id, session=session,
            outcome=outcome, reason=reason,
        )
        return self.link.publish(encode_publish_head(subject.decode()), Slice(NULL, 0), slice_of(datum))
