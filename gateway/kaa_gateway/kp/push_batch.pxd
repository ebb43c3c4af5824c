from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.kp.session cimport Delivery


cdef class PushBatch:
    # settings
    cdef int pushes_max
    # state
    cdef list pushes          # as JSON
    cdef Py_ssize_t size      # bytes of them
    cdef list receipts        # of those whose extension wants one
    cdef object timer         # asyncio.TimerHandle

    cdef bint add(self, const Delivery* delivery) except -1
    cdef bytes body(self)
    cdef Receipt receipt(self)


cdef PushBatch begin_batch(int pushes_max, object loop, object on_time)
