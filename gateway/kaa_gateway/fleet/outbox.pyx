"""What a worker has for other workers in one tick, written at its end. Nothing is kept: if NATS is lost, so is it.

What NATS has not read is bounded. At the bound, messages are dropped as if NATS were lost, but not subscriptions, and
not the states of sessions, which have been in the memory of this worker already. A CONNECT is refused before.
"""

from kaa_gateway.wire.buffer cimport Slice, slice_of
from kaa_gateway.wire.nats cimport append_publication, append_subscribe, append_unsubscribe

from kaa_gateway.fleet.messages import State, encode
from kaa_gateway.wire.nats import encode_publish_head

cdef Slice NOTHING = Slice(NULL, 0)


cdef class Outbox:
    """Subscriptions and publications of the directory."""

    def __init__(self, Link link not None, Counters counters not None):
        self.link = link
        self.counters = counters
        self.lines = Buffer()

    cdef int subscribe_again(self, list subscriptions) except -1:
        """Write the SUB lines of subjects and IDs to a new connection. They are as many as there are sessions."""
        cdef Buffer lines = Buffer()
        for subject, sid in subscriptions:
            append_subscribe(lines, subject, sid)
        return self.link.transport.write(lines.copy())

    cdef int subscribe(self, str subject, uint32_t sid) except -1:
        """Write a SUB line."""
        append_subscribe(self.lines, subject, sid)
        return self.link.tick.add(self)

    cdef int unsubscribe(self, uint32_t sid) except -1:
        """Write an UNSUB line."""
        append_unsubscribe(self.lines, sid)
        return self.link.tick.add(self)

    cdef int publish(self, str subject, str reply, message) except -1:
        """Publish a message of fleet.messages, unless too much waits for NATS."""
        cdef bytes payload
        if self.is_full() and type(message) is not State:
            return self.counters.count("dropped", "sessions_backlog")
        payload = encode(message)
        append_publication(self.lines, encode_publish_head(subject, reply), NOTHING, slice_of(payload))
        return self.link.tick.add(self)

    cdef int clear(self) except -1:
        """Discard what there is: it was for a connection that has ended."""
        self.lines.size = 0
        return 0

    cdef int write_due(self) except -1:
        """Write what there is, behind the messages of devices, wills among them."""
        cdef bytes lines = self.lines.copy()
        self.lines.size = 0
        return self.link.write_once(lines) if self.link.ready and lines else 0

    cdef Py_ssize_t waiting(self) except -1:
        """Return the number of bytes that have been written and that NATS has not taken yet."""
        return self.link.unwritten()
