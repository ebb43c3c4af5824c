"""A request with `wait` in its query: the first push for its resource path answers it, or 204 when its time is over.

A connection has one at most. It waits from when NATS has its message; an error of the gateway, or an answer of the
extension, ends it too. Those that are answered by several pushes are in batch_request.pyx and push_stream.pyx.

Source: docs/devices.md, "Wait for a push".
"""

from kaa_gateway.http.batch_request cimport BatchRequest
from kaa_gateway.http.push_stream cimport PushStream
from kaa_gateway.http.refusals cimport NO_ENDPOINT
from kaa_gateway.http.response cimport append_no_content, append_response, field_of_path
from kaa_gateway.kp.waiting cimport without_request_id
from kaa_gateway.wire.query cimport NO_WAIT


cdef class WaitingRequest(Waiting):
    """The request of a connection that waits for a push."""

    cdef int begin(self) except -1:
        """Wait: NATS has the message."""
        cdef HttpConnection connection = self.connection
        connection.server.pending.forget(connection.session.key, self.number)
        if not self.appear(connection.server.sessions):
            return connection.refuse(self.number, NO_ENDPOINT)
        self.begun = True
        if connection.input_ended or connection.is_ending or connection.server.draining:
            return self.expire()
        return connection.give_parser_back()

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Answer with a push. Return False if it is for another resource path."""
        cdef HttpConnection connection = self.connection
        if not self.matches(delivery.data, endpoint):
            return False
        connection.stop_waiting(self.number)
        append_response(
            connection.buffer_of(self.number), delivery.data, connection.persistence(self.number),
            field_of_path(delivery.data.resource_path), connection.requests.take_cors(self.number),
        )
        connection.send_in_order(self.number)
        return True

    cdef bint take_answer(self, const ExtensionDataView* data) except -1:
        """Send the extension's answer, if that is not simply the response. Return False if it is."""
        return False

    cdef bint take_failure(self) except -1:
        """End, if an error of the gateway's own cannot be the response any more. Return False if it can."""
        return False

    cdef int check(self, double now) except -1:
        """End the wait if the time is over."""
        return self.expire() if self.begun and now >= self.deadline else 0

    cdef int on_detached(self, Attachment attachment) except -1:
        """End the wait if the endpoint is not the session's any more."""
        return self.expire() if self.attachment is attachment else 0

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
        self.disappear(self.connection.server.sessions)
        self.connection = None
        return 0


cdef WaitingRequest await_push(HttpConnection connection, uint32_t number, double now):
    """Return what lets the request in the connection's parser wait, which begins when NATS has its message."""
    cdef WaitingRequest request
    cdef double wait = connection.server.wait_max
    if connection.parser.target.query.wait != NO_WAIT:
        wait = min(<double>connection.parser.target.query.wait, wait)
    if connection.parser.streams:
        request = PushStream()
    elif connection.parser.target.query.batch:
        request = BatchRequest()
        (<BatchRequest>request).pushes_max = connection.parser.target.query.batch
    else:
        request = WaitingRequest()
    request.connection = connection
    request.number = number
    request.wait_for(connection.session, without_request_id(connection.parser.target.path), now + wait)
    return request
