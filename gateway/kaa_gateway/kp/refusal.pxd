cdef class Refusal:
    # An error with which the gateway itself refuses a message.
    cdef readonly int status
    cdef readonly str reason    # code that counts it: docs/reasons.md
    cdef readonly str phrase    # for the device
