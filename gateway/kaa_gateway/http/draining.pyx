"""How connections end when the gateway shuts down: after the requests that have arrived, or when its time is over."""

from kaa_gateway.http.refusals cimport DRAINING
from kaa_gateway.http.states cimport AUTHENTICATING, FINISHING, PIPELINE_FULL
from kaa_gateway.http.waiting_request cimport WaitingRequest


cdef int drain(HttpConnection connection) except -1:
    """Close after the open requests, or after those that are held or arriving."""
    cdef WaitingRequest waiting = connection.waiting  # held, as in `acknowledge`
    if connection.state == FINISHING and waiting is not None and waiting.begun:
        return waiting.expire()
    if connection.state in (PIPELINE_FULL, AUTHENTICATING) or not connection.is_serving() or connection.is_receiving():
        return 0
    connection.move(FINISHING)
    if waiting is not None and waiting.begun:
        return waiting.expire()
    return 0 if connection.requests.count else connection.finish()


cdef bint is_unfinished(HttpConnection connection) noexcept:
    """Return whether a request is arriving or waits for its response."""
    return connection.requests.count > 0 or connection.state == AUTHENTICATING or connection.is_receiving()


cdef int refuse_unfinished(HttpConnection connection) except -1:
    """Answer 503 to all requests that are arriving or wait for their response: the time to drain is over."""
    while connection.state == PIPELINE_FULL and connection.requests.count:
        # When there is room, the held requests are refused as well.
        refuse_first(connection)
    if connection.state == AUTHENTICATING or (connection.is_receiving() and not connection.parser.discarding):
        connection.refuse_and_close(DRAINING, True)
    elif connection.is_serving():
        connection.end(DRAINING.reason)
    while connection.requests.count:
        refuse_first(connection)
    return 0


cdef int refuse_first(HttpConnection connection) except -1:
    """Answer 503 to the first open request: the gateway is shutting down."""
    connection.server.counters.count("refused", DRAINING.reason)
    return connection.fail(connection.requests.first, DRAINING.status, DRAINING.phrase, True)
