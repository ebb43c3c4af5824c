cdef class Receipt:
    # The report about a push to one session, until its outcome is known.
    # wiring
    cdef object receipts     # Receipts
    # identity
    cdef bytes subject       # that the report goes to
    cdef str push_id
    cdef str endpoint_id
    cdef str session
    # state
    cdef bint kept           # its outcome will be known later
    cdef bint held           # the session reports `accepted` itself, when it has stored the push
    cdef bint over           # there is nothing more to say

    cdef int accept(self) except -1
    cdef int end(self, str outcome, str reason) except -1


cdef class JointReceipt(Receipt):
    # wiring
    cdef list of_pushes
