"""A request that accepts text/event-stream: each push for its resource path is an event of its response.

The response has no length, and ends with its connection: when the time is over, the gateway drains, or the client does
not read what it is sent. Nothing that comes behind the request on its connection is read.

Source: docs/devices.md, "Server-Sent Events"; HTML Living Standard section 9.2 (Server-sent events).
"""

from kaa_gateway.http.connection cimport HttpConnection
from kaa_gateway.http.response cimport append_stream_head
from kaa_gateway.kp.push_json cimport encode_push, event_id
from kaa_gateway.kp.session cimport Delivery, Endpoint

cdef double HEARTBEAT_PERIOD = 15.0   # seconds without an event, after which a comment is sent

cdef bytes COMMENT = b":\n\n"


cdef class PushStream(WaitingRequest):
    """The request of a connection whose response is a stream of events."""

    cdef int start(self) except -1:
        """Write the head of the response, once."""
        cdef HttpConnection connection = self.connection
        if self.headed:
            return 0
        self.headed = True
        self.written = connection.server.loop.time()
        append_stream_head(connection.output, connection.requests.take_cors(self.number))
        return connection.transport.wake()

    cdef int begin(self) except -1:
        cdef HttpConnection connection = self.connection
        WaitingRequest.begin(self)
        return self.start() if self.connection is connection else 0

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Send a push as an event. Return False if it is for another resource path."""
        if not self.matches(delivery.data, endpoint):
            return False
        self.start()
        self.send_event(None, delivery.data)
        return True

    cdef int send_event(self, bytes name, const ExtensionDataView* data) except -1:
        """Send an event; one without a name is a push."""
        cdef HttpConnection connection = self.connection
        cdef bytes identifier = event_id(data), event = b""
        if name is not None:
            event = b"event: " + name + b"\n"
        elif identifier is not None:
            event = b"id: " + identifier + b"\n"
        event += b"data: " + encode_push(data) + b"\n\n"
        connection.output.append(<const char*>event, len(event))
        self.written = connection.server.loop.time()
        return connection.transport.wake()

    cdef bint take_answer(self, const ExtensionDataView* data) except -1:
        """Send the extension's answer as an event `answer`; an error ends the stream."""
        if not self.headed:
            return False
        self.send_event(b"answer", data)
        if data.status_code >= 400:
            self.expire()
        return True

    cdef bint take_failure(self) except -1:
        if not self.headed:
            return False
        self.expire()
        return True

    cdef int check(self, double now) except -1:
        """End the stream if its time is over, or send a comment if nothing was sent for long."""
        cdef HttpConnection connection = self.connection
        WaitingRequest.check(self, now)
        if self.connection is not None and self.headed and now - self.written >= HEARTBEAT_PERIOD:
            self.written = now
            connection.output.append(<const char*>COMMENT, len(COMMENT))
            return connection.transport.wake()
        return 0

    cdef int expire(self) except -1:
        """End the stream."""
        cdef HttpConnection connection = self.connection
        self.start()
        connection.stop_waiting(self.number)
        return connection.send_in_order(self.number)
