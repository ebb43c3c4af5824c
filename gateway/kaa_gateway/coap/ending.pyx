"""Ends what clients have asked for, of many peers, a slice at a time: observations, and waits for a push.

The server calls this when it drains, and from time to time.
"""

from itertools import islice

from kaa_gateway.coap.exchanges cimport Exchange
from kaa_gateway.coap.observations cimport Observation
from kaa_gateway.coap.peer cimport CoapPeer
from kaa_gateway.coap.waiting_request cimport expire
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.coap cimport NOT_FOUND, SERVICE_UNAVAILABLE

cdef enum:
    ENDED_AT_ONCE = 100             # observations, and waiting requests
    EXPIRED_AT_ONCE = 500           # waiting requests


cdef bint end_observations(CoapContext context) except -1:
    """End some observations because the server drains. Return whether there are more."""
    cdef Observation observation
    for observation in list(islice(context.observations.observations, ENDED_AT_ONCE)):
        (<CoapPeer>observation.peer).observer.end_all(SERVICE_UNAVAILABLE)
    return len(context.observations) > 0


cdef int end_unserved(CoapContext context) except -1:
    """End observations whose resource is gone, of the next ones that are to be checked."""
    cdef Observation observation
    for observation in context.observations.next_unserved(context.served):
        (<CoapPeer>observation.peer).observer.send_notification(observation, NOT_FOUND, -1, Slice(NULL, 0), None)
    return 0


cdef bint end_waits(CoapContext context) except -1:
    """Answer some requests that wait for a push, because the server drains. Return whether there are more."""
    cdef Exchange exchange
    for exchange in context.waiting.some(ENDED_AT_ONCE):
        expire(<CoapPeer>exchange.peer, exchange)
    # A request whose message NATS does not have yet ends when it has.
    return len(context.waiting.slots) > 0


cdef bint expire_waits(CoapContext context, double now) except -1:
    """Answer requests whose wait for a push is over. Return whether there may be more."""
    cdef Exchange exchange
    cdef bint more = False
    for exchange in context.waiting.due(now, EXPIRED_AT_ONCE):
        expire(<CoapPeer>exchange.peer, exchange)
        more = True
    return more
