cdef class Refusal:
    cdef readonly int status
    cdef readonly str reason    # code that counts it: docs/reasons.md
    cdef readonly str phrase    # for the client; None stands for the phrase of the status


cdef Refusal MALFORMED
cdef Refusal BAD_LINE_END
cdef Refusal FOLDED
cdef Refusal BAD_HOST
cdef Refusal BAD_LENGTH
cdef Refusal BAD_TARGET
cdef Refusal BAD_WAITING_TIME
cdef Refusal BAD_BATCH_SIZE
cdef Refusal WAITS_ALREADY
cdef Refusal STREAM_BEHIND
cdef Refusal NO_ENDPOINT
cdef Refusal NO_CREDENTIALS
cdef Refusal BAD_CREDENTIALS
cdef Refusal NOT_FOUND
cdef Refusal METHOD_NOT_ALLOWED
cdef Refusal TOO_SLOW
cdef Refusal BODY_TOO_LARGE
cdef Refusal URL_TOO_LONG
cdef Refusal UNKNOWN_EXPECTATION
cdef Refusal HEADER_TOO_LARGE
cdef Refusal UNKNOWN_METHOD
cdef Refusal UNKNOWN_CODING
cdef Refusal DRAINING
cdef Refusal NATS_AWAY
cdef Refusal OVERLOADED
cdef Refusal NO_INPUT_MEMORY
cdef Refusal TOO_MANY_PENDING
cdef Refusal BAD_VERSION


cdef bytes challenge_of(Refusal refusal)
cdef bint may_be_honest(Refusal refusal) noexcept
cdef Refusal refusal_of(error)
