"""The refusals of the CoAP server: the errors that the gateway itself answers requests with.

The codes stand in docs/reasons.md. Those of options are in options.pyx.
"""

from kaa_gateway.wire.coap cimport (
    BAD_REQUEST, METHOD_NOT_ALLOWED, NOT_ACCEPTABLE, NOT_FOUND, REQUEST_ENTITY_INCOMPLETE,
    REQUEST_ENTITY_TOO_LARGE, SERVICE_UNAVAILABLE, UNAUTHORIZED,
)

cdef Refusal BAD_METHOD = Refusal(METHOD_NOT_ALLOWED, "coap_method", "POST, PUT, GET or FETCH")
cdef Refusal BAD_FORMAT = Refusal(NOT_ACCEPTABLE, "coap_not_acceptable", "No response has this Content-Format")
cdef Refusal ECHO_REQUIRED = Refusal(UNAUTHORIZED, "coap_echo_required", "")
cdef Refusal NOT_KP1 = Refusal(
    NOT_FOUND, "coap_not_kp1", "Resource path must be kp1/<application version>/<extension instance>/..."
)
cdef Refusal LONG_PATH = Refusal(NOT_FOUND, "coap_long_path", "Resource path is too long")
cdef Refusal DRAINING = Refusal(SERVICE_UNAVAILABLE, "draining", "The gateway is shutting down")
cdef Refusal NATS_AWAY = Refusal(SERVICE_UNAVAILABLE, "nats_away", "NATS is not connected")
cdef Refusal OVERLOADED = Refusal(SERVICE_UNAVAILABLE, "backlog", "Too many messages wait to be forwarded")
cdef Refusal TOO_MANY_PENDING = Refusal(
    SERVICE_UNAVAILABLE, "too_many_pending_requests", "Too many requests wait for an answer"
)
cdef Refusal TOO_MANY_WAIT = Refusal(
    SERVICE_UNAVAILABLE, "coap_too_many_waiting", "Too many requests wait for a push"
)
cdef Refusal NO_MEMORY = Refusal(SERVICE_UNAVAILABLE, "coap_block_memory", "Too many blockwise transfers")
cdef Refusal INCOMPLETE = Refusal(REQUEST_ENTITY_INCOMPLETE, "coap_incomplete", "Blocks before this one are missing")
cdef Refusal SHORT_BLOCK = Refusal(BAD_REQUEST, "coap_short_block", "A block that is not the last must be whole")
cdef Refusal TOO_LARGE = Refusal(REQUEST_ENTITY_TOO_LARGE, "coap_body_too_large", "The body is too large")
cdef Refusal NO_BODY = Refusal(
    REQUEST_ENTITY_INCOMPLETE, "coap_no_such_body", "No response is kept that has this block"
)
cdef Refusal BAD_WAITING_TIME = Refusal(BAD_REQUEST, "coap_wait", "wait must be a number of seconds above 0")
cdef Refusal NO_BLOCK = Refusal(BAD_REQUEST, "coap_block_number", "The body has no such block")
cdef Refusal BAD_BATCH_SIZE = Refusal(BAD_REQUEST, "coap_batch", "batch must be a number from 1 to 1000")
cdef Refusal BAD_BATCH_FORMAT = Refusal(NOT_ACCEPTABLE, "coap_not_acceptable", "Several pushes are application/json")
cdef Refusal NO_ENDPOINT = Refusal(
    BAD_REQUEST, "coap_wait_without_endpoint", "The extension has no endpoints to wait for"
)
