from kaa_gateway.coap.options cimport Refusal

cdef Refusal BAD_METHOD
cdef Refusal BAD_FORMAT
cdef Refusal ECHO_REQUIRED
cdef Refusal NOT_KP1
cdef Refusal LONG_PATH
cdef Refusal DRAINING
cdef Refusal NATS_AWAY
cdef Refusal OVERLOADED
cdef Refusal TOO_MANY_PENDING
cdef Refusal TOO_MANY_WAIT
cdef Refusal NO_MEMORY
cdef Refusal INCOMPLETE
cdef Refusal SHORT_BLOCK
cdef Refusal TOO_LARGE
cdef Refusal NO_BODY
cdef Refusal BAD_WAITING_TIME
cdef Refusal NO_BLOCK
cdef Refusal BAD_BATCH_SIZE
cdef Refusal BAD_BATCH_FORMAT
cdef Refusal NO_ENDPOINT
