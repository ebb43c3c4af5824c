from kaa_gateway.http.waiting_request cimport WaitingRequest
from kaa_gateway.kp.push_batch cimport PushBatch


cdef class BatchRequest(WaitingRequest):
    # settings
    cdef int pushes_max
    # state
    cdef PushBatch pushes     # None before the first

    cdef int answer(self) except -1
