"""The refusals of the HTTP server: the errors that the gateway itself answers requests with.

The codes stand in docs/reasons.md.
"""

# The challenge where the client itself must authenticate (RFC 7617).
cdef bytes BASIC_CHALLENGE = b'WWW-Authenticate: Basic realm="kp1", charset="UTF-8"\r\n'


cdef class Refusal:
    """An error that the gateway itself answers a request with."""

    def __init__(self, int status, str reason not None, str phrase):
        self.status = status
        self.reason = reason
        self.phrase = phrase


cdef Refusal MALFORMED = Refusal(400, "http_malformed_request", "Malformed request")
cdef Refusal BAD_LINE_END = Refusal(400, "http_line_end", "Lines of the head must end with CRLF")
cdef Refusal FOLDED = Refusal(400, "http_folded_field", "A header field must be on one line")
cdef Refusal BAD_HOST = Refusal(400, "http_host", "Exactly one valid Host is required")
cdef Refusal BAD_LENGTH = Refusal(400, "http_body_length", "The length of the body is ambiguous")
cdef Refusal BAD_TARGET = Refusal(400, "http_target", "Malformed request target")
cdef Refusal BAD_WAITING_TIME = Refusal(400, "http_wait", "wait must be a number of seconds above 0")
cdef Refusal WAITS_ALREADY = Refusal(400, "http_waits_already", "A request of this connection waits already")
cdef Refusal BAD_BATCH_SIZE = Refusal(400, "http_batch", "batch must be a number from 1 to 1000")
cdef Refusal STREAM_BEHIND = Refusal(400, "http_waits_already", "A stream cannot follow a request without response")
cdef Refusal NO_ENDPOINT = Refusal(400, "http_wait_without_endpoint", "The extension has no endpoints to wait for")
cdef Refusal NO_CREDENTIALS = Refusal(401, "credentials_missing", "Credentials are required")
cdef Refusal BAD_CREDENTIALS = Refusal(401, "credentials_rejected", None)
cdef Refusal NOT_FOUND = Refusal(
    404, "http_not_kp1", "Resource path must be kp1/<application version>/<extension instance>/..."
)
cdef Refusal METHOD_NOT_ALLOWED = Refusal(405, "http_method", "Only POST is allowed")
cdef Refusal TOO_SLOW = Refusal(408, "http_read_timeout", "The request did not arrive in time")
cdef Refusal BODY_TOO_LARGE = Refusal(413, "http_body_too_large", "Request body is too large")
cdef Refusal URL_TOO_LONG = Refusal(414, "http_url_too_long", "Request target is too long")
cdef Refusal UNKNOWN_EXPECTATION = Refusal(417, "http_expectation", "Only 100-continue can be expected")
cdef Refusal HEADER_TOO_LARGE = Refusal(431, "http_header_too_large", "Header fields are too large")
cdef Refusal UNKNOWN_METHOD = Refusal(501, "http_unknown_method", "Unknown method")
cdef Refusal UNKNOWN_CODING = Refusal(501, "http_transfer_encoding", "The only transfer coding is chunked")
cdef Refusal DRAINING = Refusal(503, "draining", "The gateway is shutting down")
cdef Refusal NATS_AWAY = Refusal(503, "nats_away", "NATS is not connected")
cdef Refusal OVERLOADED = Refusal(503, "backlog", "Too many messages wait to be forwarded")
cdef Refusal NO_INPUT_MEMORY = Refusal(503, "input_memory_full", "Too many bytes of unfinished requests are held")
cdef Refusal TOO_MANY_PENDING = Refusal(503, "too_many_pending_requests", "Too many requests wait for an answer")
cdef Refusal BAD_VERSION = Refusal(505, "http_version", "Only HTTP/1.1 and HTTP/1.0 are spoken")


cdef bytes challenge_of(Refusal refusal):
    """Return the WWW-Authenticate of a refusal that asks the client to authenticate; None for others."""
    return BASIC_CHALLENGE if refusal.status == 401 else None


cdef bint may_be_honest(Refusal refusal) noexcept:
    """Return whether the client of a request that is not read to its end may be an honest one."""
    return refusal.status in (413, 414, 417, 431)


cdef Refusal refusal_of(error):
    """Return the refusal that an IdentityError means."""
    return Refusal(error.status, error.reason, error.detail or None)
