"""What a worker has for other workers in one tick, written at its end. Nothing is kept: if NATS is lost, so is it."""

from kaa_gateway.wire.buffer cimport Slice, slice_of
from kaa_gateway.wire.nats cimport append_publication, append_subscribe, append_unsubscribe

from kaa_gateway.fleet.messages import encode
from kaa_gateway.wire.nats import encode_publish_head

cdef Slice NOTHING = Slice(NULL, 0)


cdef class Outbox:
    """Subscriptions and publications of the directory."""

    def __init__(self, Link link not None):
        self.link = link
        self.lines = Buffer()

    cdef int subscribe(self, str subject, uint32_t sid) except -1:
        """Write a SUB line."""
        append_subscribe(self.lines, subject, sid)
        return self.link.tick.add(self)

    cdef int unsubscribe(self, uint32_t sid) except -1:
        """Write an UNSUB line."""
        append_unsubscribe(self.lines, sid)
        return self.link.tick.add(self)

    cdef int publish(self, str subject, str reply, message) except -1:
        """Publish a message of fleet.messages."""
        cdef bytes payload = encode(message)
        append_publication(self.lines, encode_publish_head(subject, reply), NOTHING, slice_of(payload))
        return self.link.tick.add(self)

    cdef int clear(self) except -1:
        """Discard what there is: it was for a connection that has ended."""
        self.lines.size = 0
        return 0

    cdef int write_due(self) except -1:
        """Write what there is, behind the messages of devices, wills among them."""
        if self.link.ready and self.lines.size:
            self.link.flush()
            self.link.transport.write(self.lines.copy())
        self.lines.size = 0
        return 0

    cdef Py_ssize_t waiting(self) except -1:
        """Return the number of bytes that have been written and that NATS has not taken yet."""
        return self.link.unwritten()
