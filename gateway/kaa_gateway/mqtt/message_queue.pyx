"""The messages to one client that wait for a place in its window, or for its return.

How many there may be, and how long they may wait, is for the session (session.pyx).
"""

from collections import deque

from kaa_gateway.kp.receipts cimport borrowed, kept_receipt
from kaa_gateway.wire.buffer cimport slice_of, to_bytes


cdef class QueuedMessage:
    """A copy of a message that waits: see Outgoing."""

    cdef Outgoing outgoing(self) noexcept:
        """Return the message, borrowed from this copy."""
        return Outgoing(
            slice_of(self.topic), slice_of(self.payload), slice_of(self.properties), self.deadline, self.qos,
            self.repeats, borrowed(self.receipt),
        )


cdef class MessageQueue:
    """Messages in the order in which they go to the client."""

    def __init__(self):
        self.messages = deque()

    def __len__(self):
        return len(self.messages)

    cdef int append(self, const Outgoing* message) except -1:
        """Add a copy of a message to the end."""
        cdef QueuedMessage queued = QueuedMessage()
        queued.topic = to_bytes(message.topic)
        queued.payload = message.payload.data[:message.payload.size]  # of no payload, data is NULL
        queued.properties = to_bytes(message.properties)
        queued.deadline = message.deadline
        queued.qos = message.qos
        queued.repeats = message.repeats
        queued.receipt = kept_receipt(message.receipt)
        self.messages.append(queued)
        self.bytes += size_of(message)
        return 0

    cdef QueuedMessage first(self):
        """Return the oldest message, or None."""
        return <QueuedMessage>self.messages[0] if self.messages else None

    cdef int remove_first(self) except -1:
        """Remove the oldest message; there is one."""
        cdef QueuedMessage queued = self.messages.popleft()
        cdef Outgoing message = queued.outgoing()
        self.bytes -= size_of(&message)
        return 0
