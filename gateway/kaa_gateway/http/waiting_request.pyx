"""A request with `wait` in its query: the first push for its resource path answers it, or 204 when its time is over.

A connection has one at most. It waits from when NATS has its message; an error of the gateway, or an answer of the
extension, ends it too.

Source: docs/devices.md, "Wait for a push".
"""

from kaa_gateway.http.refusals cimport NO_ENDPOINT
from kaa_gateway.http.response cimport append_no_content, append_response, field_of_path
from kaa_gateway.kp.waiting cimport new_waiting, without_request_id


cdef class WaitingRequest:
    """The request of a connection that waits for a push."""

    cdef int begin(self) except -1:
        """Wait: NATS has the message."""
        cdef HttpConnection connection = self.connection
        connection.server.pending.forget(connection.session.key, self.number)
        if not self.waiting.begin(connection.server.sessions):
            return connection.refuse(self.number, NO_ENDPOINT)
        self.begun = True
        return self.expire() if connection.input_ended else 0

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Answer with a push. Return False if it is for another resource path."""
        cdef HttpConnection connection = self.connection
        if not self.waiting.matches(delivery.data, endpoint):
            return False
        connection.stop_waiting(self.number)
        append_response(
            connection.buffer_of(self.number), delivery.data, connection.persistence(self.number),
            field_of_path(delivery.data.resource_path), connection.requests.take_cors(self.number),
        )
        connection.send_in_order(self.number)
        return True

    cdef int check(self, double now) except -1:
        """Answer with 204 if the time is over, or the endpoint is not the session's any more."""
        if self.begun and (now >= self.waiting.deadline or self.waiting.find_attachment() is None):
            return self.expire()
        return 0

    cdef int expire(self) except -1:
        """Answer with 204: there was no push."""
        cdef HttpConnection connection = self.connection
        connection.stop_waiting(self.number)
        append_no_content(
            connection.buffer_of(self.number), connection.persistence(self.number),
            connection.requests.take_cors(self.number),
        )
        return connection.send_in_order(self.number)

    cdef int cancel(self) except -1:
        """Stop waiting: the request is answered, or its connection is gone."""
        self.waiting.end(self.connection.server.sessions)
        self.connection = None
        return 0


cdef WaitingRequest await_push(HttpConnection connection, uint32_t number, double now):
    """Return what lets the request in the connection's parser wait, which begins when NATS has its message."""
    cdef WaitingRequest request = WaitingRequest()
    cdef double wait = min(<double>connection.parser.target.wait, connection.server.wait_max)
    request.connection = connection
    request.number = number
    request.waiting = new_waiting(
        connection.session, without_request_id(connection.parser.target.path), now + wait
    )
    return request
