from kaa_gateway.http.waiting_request cimport WaitingRequest


cdef class PushBatch(WaitingRequest):
    # settings
    cdef int pushes_max
    # state
    cdef list pushes          # as JSON
    cdef Py_ssize_t size      # bytes of them
    cdef list receipts        # of those whose extension wants one
    cdef object timer         # asyncio.TimerHandle of `answer`; None before the first push

    cdef int answer(self) except -1
