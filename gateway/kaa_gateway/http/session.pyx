"""The session of an HTTP connection: hands what comes from NATS to the request that it answers."""

from libc.stdint cimport uint32_t

from kaa_gateway.http.waiting_request cimport WaitingRequest
from kaa_gateway.kp.correlation cimport REQUEST, SEQUENCE_MASK, Service
from kaa_gateway.kp.session cimport Attachment, Delivery, Endpoint
from kaa_gateway.net.proxy cimport describe_peer
from kaa_gateway.wire.buffer cimport Slice


cdef class HttpSession(Session):
    """The session of one connection. A push reaches it while a request waits for that."""

    def describe(self):
        """Return what an operator may see of it."""
        return {
            **Session.describe(self),
            **(describe_peer(b"", None) if self.connection is None else self.connection.transport.describe()),
        }

    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1:
        """Answer the request of this number with an error, if it is open."""
        if self.connection is None:
            return 0
        return self.connection.fail(sequence, status, reason_phrase, True, self.fields_of_failure())

    cdef bytes fields_of_failure(self):
        """Return Retry-After if the uplink knows when the message may come again; None for the usual fields."""
        cdef int seconds = self.connection.server.uplink.retry_after
        return b"Retry-After: %d\r\n" % seconds if seconds else None

    cdef int acknowledge(self, uint32_t token) except -1:
        """Answer a request that wants no answer of its extension: NATS has its message."""
        cdef uint32_t number = token & SEQUENCE_MASK
        if self.connection is None or not self.connection.requests.is_open(number):
            return 0
        return self.connection.acknowledge(number)

    cdef int end(self, str reason) except -1:
        """Close the connection, for a reason that is a code."""
        return 0 if self.connection is None else self.connection.end(reason)

    cdef int on_detached(self, Attachment attachment) except -1:
        """End the wait for a push to an endpoint that is not the session's any more."""
        cdef WaitingRequest waiting = None if self.connection is None else self.connection.waiting
        return 0 if waiting is None else waiting.on_detached(attachment)

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Answer an open request with an ExtensionData; return False if it answers none. Hot path."""
        cdef WaitingRequest waiting  # held: its answer makes the connection forget it
        if self.connection is None:
            return False
        if not delivery.correlated:
            waiting = self.connection.waiting
            return waiting is not None and waiting.deliver(delivery, endpoint)
        if delivery.service != REQUEST or not self.connection.requests.is_open(delivery.sequence):
            return False
        self.connection.respond(delivery.sequence, delivery.data)
        return True
