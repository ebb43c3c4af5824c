"""What is written of a session so that it outlives its worker, and when `accepted` is reported of its pushes.

A client that acknowledges a message at once costs nothing: a session is written only if a message is still there when
it is its turn. For a client that is offline, only the messages are written that have come since.

Where sessions are written is in kaa_gateway.fleet.session_storage, and the form of a state in session_state.py.
"""

from libc.stdint cimport int64_t

from kaa_gateway.clock cimport now_ms
from kaa_gateway.mqtt.message_queue cimport QueuedMessage
from kaa_gateway.mqtt.session cimport OFFLINE
from kaa_gateway.mqtt.session_transfer cimport messages_of, state_of

import msgspec

from kaa_gateway.mqtt import session_state

cdef enum:
    KEPT_LONGER = 60           # seconds for which the stream keeps a session that has expired
    KEPT_ONLINE = 3600         # ... and one whose client was online when its worker died; it is renewed more often
    MESSAGE_OVERHEAD = 512     # bytes of a queued message beside its texts, at most
    ACCEPTED_MIN = 128         # receipts beside which those that are over are looked for


cdef class MqttStoredSession(StoredSession):
    """The session of one client in the stream."""

    def __init__(self):
        self.accepted = []
        self.taken = []

    # ------------------------------------------------------------ what has changed

    cdef int change(self) except -1:
        """Note that something else than messages has changed."""
        self.whole = self.lasting = True
        return self.storage.mark(self)

    cdef int change_messages(self) except -1:
        """Note that messages were sent, or acknowledged. Hot path."""
        self.whole = True
        return self.storage.mark(self)

    cdef int queue_one(self) except -1:
        """Note that a message was added to the queue. Hot path."""
        self.queued += 1
        return self.storage.mark(self)

    cdef int hold(self, Receipt receipt) except -1:
        """Report that the session has a push when the stream has it."""
        receipt.held = True
        self.accepted.append(receipt)
        if len(self.accepted) % ACCEPTED_MIN == 0:
            self.accepted = [each for each in self.accepted if not (<Receipt>each).over]
        return 0

    cdef int close(self) except -1:
        """Report nothing more: the session has ended here."""
        self.accepted.clear()
        self.taken.clear()
        return 0

    # ------------------------------------------------------------ what is written

    cdef bytes take(self, Py_ssize_t size_max):
        cdef MqttSession session = self.session
        cdef bint has_messages = (session.in_flight is not None and len(session.in_flight.packets) > 0) \
            or (session.queued is not None and len(session.queued.messages) > 0)
        cdef Py_ssize_t queued = self.queued
        cdef bint whole = self.whole or self.base == 0
        cdef bytes state
        if whole and not self.lasting and not has_messages and not self.has_messages:
            whole, queued = False, 0
        self.unsent = None
        self.taken = [each for each in self.taken + self.accepted if not (<Receipt>each).over]
        self.accepted.clear()
        self.whole = self.lasting = False
        self.queued = 0
        self.has_messages = has_messages
        if not whole:
            if queued:
                self.unsent = self.additions_of(messages_of(session.queued, queued), size_max)
            return None
        found = state_of(session)
        state = session_state.encode(found)
        if len(state) > size_max and found.queued:
            state = session_state.encode(msgspec.structs.replace(found, queued=[]))
            self.unsent = self.additions_of(found.queued, size_max)
        return state

    cdef list additions_of(self, list messages, Py_ssize_t size_max):
        """Return the additions that the last messages of the queue make, none larger than this."""
        cdef Py_ssize_t size = 0, size_of_one, at
        cdef list pushes = [] if self.session.pushes is None else self.session.pushes.copy()
        cdef list additions = [], part = []
        queue = self.session.queued.messages
        for at, each in enumerate(messages):
            size_of_one = len(each.topic) + len(each.payload) + len(each.properties or b"") + MESSAGE_OVERHEAD
            if part and size + size_of_one > size_max - MESSAGE_OVERHEAD:
                additions.append(session_state.encode(session_state.Addition(part, pushes)))
                part = []
                size = 0
            if size_of_one > size_max - MESSAGE_OVERHEAD:
                self.leave_out(queue[len(queue) - len(messages) + at])
                continue
            part.append(each)
            size += size_of_one
        if part:
            additions.append(session_state.encode(session_state.Addition(part, pushes)))
        return additions

    cdef int leave_out(self, QueuedMessage message) except -1:
        """Note that a queued message is too large to be stored. When it is sent, its receipt is held again."""
        cdef Receipt receipt = message.receipt
        if receipt is not None:
            receipt.held = False
            self.taken = [each for each in self.taken if each is not receipt]
        return self.session.counters.count("dropped", "session_state_too_large")

    cdef int64_t ends(self) except -1:
        if self.session.state != OFFLINE:
            return 0
        return now_ms() + <int64_t>(1000 * (self.session.expires_at - self.storage.loop.time()))

    cdef int64_t seconds(self) except -1:
        cdef int64_t ends = self.ends()
        if ends == 0:
            return <int64_t>self.session.expiry + KEPT_ONLINE
        return max((ends - now_ms()) // 1000, 0) + KEPT_LONGER

    cdef int on_stored(self) except -1:
        cdef Receipt receipt
        taken, self.taken = self.taken, []
        for receipt in taken:
            if not receipt.over:
                receipt.accept()
        return 0

    cdef int on_not_stored(self) except -1:
        self.whole = self.lasting = True
        return 0

    cdef int supersede(self) except -1:
        if self.session.stored is self:
            return self.entry.supersede()
        return 0
