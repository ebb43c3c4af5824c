"""What is checked of a request before it is forwarded, and before its body is asked for."""

from kaa_gateway.http.refusals cimport (
    BAD_BATCH_SIZE, BAD_WAITING_TIME, DRAINING, METHOD_NOT_ALLOWED, NATS_AWAY, NO_CREDENTIALS, STREAM_BEHIND,
    WAITS_ALREADY,
)
from kaa_gateway.wire.http cimport METHOD_POST
from kaa_gateway.wire.query cimport BAD_BATCH, BAD_WAIT


cdef Refusal check_request(HttpConnection connection):
    """Return why the request in the parser cannot be forwarded, or None. Hot path."""
    if connection.parser.method != METHOD_POST and not connection.parser.streams:
        return METHOD_NOT_ALLOWED
    if connection.parser.target.refusal is not None:
        return connection.parser.target.refusal
    if connection.parser.target.query.wait or connection.parser.streams:
        if connection.parser.target.query.wait == BAD_WAIT:
            return BAD_WAITING_TIME
        if connection.parser.target.query.batch == BAD_BATCH:
            return BAD_BATCH_SIZE
        if connection.waiting is not None:
            return WAITS_ALREADY
        if connection.parser.streams and connection.requests.count:
            return STREAM_BEHIND
    if not connection.server.uplink.link.ready:
        return NATS_AWAY
    if connection.server.drain_ended:
        return DRAINING
    if connection.server.demands_credentials and connection.parser.authorization is None \
            and connection.transport.certificate is None:
        return NO_CREDENTIALS
    return None
