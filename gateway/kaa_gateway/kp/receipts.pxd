from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

from kaa_gateway.bus.link cimport Link
from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef class ReceiptRequest:
    # The wish of an extension to know what becomes of a push.
    # wiring
    cdef Receipts receipts
    # identity
    cdef bytes subject
    cdef str push_id
    cdef str endpoint_id
    # state
    cdef bint answered       # a session has said something

    cdef Receipt receipt_of(self, uint64_t session)
    cdef int refuse(self, str outcome, str reason) except -1


cdef class Receipts:
    # wiring
    cdef Link link
    cdef Counters counters
    # identity
    cdef str replica_id

    cdef ReceiptRequest read_request(self, Slice header, const ExtensionDataView* push)
    cdef Receipt restore(self, bytes subject, str push_id, str endpoint_id, str session)
    cdef int send(
        self, bytes subject, str push_id, str endpoint_id, str session, str outcome, str reason
    ) except -1


cdef inline Receipt kept_receipt(PyObject* receipt):
    # Return the receipt of a delivery whose outcome will be known later, or None if nobody wants one. Hot path.
    if receipt == NULL:
        return None
    (<Receipt>receipt).kept = True
    return <Receipt>receipt


cdef inline PyObject* borrowed(Receipt receipt) noexcept:
    # Return a pointer that is valid while the caller holds the receipt; NULL for None.
    if receipt is None:
        return NULL
    return <PyObject*>receipt


cdef inline int drop_receipt(PyObject* receipt, str reason) except -1:
    # Say that a push was dropped, if somebody wants to know. Hot path.
    return 0 if receipt == NULL else (<Receipt>receipt).end("dropped", reason)
