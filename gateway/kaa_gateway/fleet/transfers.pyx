"""Sessions that go from worker to worker: their state, in parts as large as NATS takes, and what comes after them.

What the state is, and what comes after a session, is in kaa_gateway.mqtt.
"""

from collections import OrderedDict
from typing import NamedTuple

import msgspec
import structlog

from kaa_gateway.fleet import messages
from kaa_gateway.fleet.messages import Nothing, State

log = structlog.get_logger("gateway.fleet")

cdef enum:
    MOVED_MAX = 20_000             # sessions whose new workers are remembered
    STATE_SIZE_MAX = 256 * 1024 * 1024  # bytes
    PART_OVERHEAD = 128            # bytes of a message beside the part of a state in it
    PART_SIZE_MIN = 512

cdef double MOVED_TIME = 60.0      # seconds for which the new worker of a session is remembered


class Moved(NamedTuple):
    """Where a session has gone. `answered` says that what there was has been sent there."""

    inbox: str
    until: float
    answered: bool


cdef class Transfers:
    """The sessions that come to one worker, and those that it gives away."""

    def __init__(self, Outbox outbox not None, Counters counters not None):
        self.loop = outbox.link.loop
        self.outbox = outbox
        self.counters = counters
        self.moved = OrderedDict()
        self.given_at = float("-inf")
        self.sessions = {"in": 0, "out": 0}
        self.messages = {"in": 0, "out": 0}

    cdef int give(self, str name, str inbox, bytes state, uint64_t number, bint had) except -1:
        """Send the worker that claims a session what there is, and remember where it went.

        `had` says that it was here, though there may be no state of it.
        """
        cdef double now = self.loop.time()
        self.forget_old(now)
        self.moved.pop(name, None)
        self.moved[name] = Moved(inbox, now + MOVED_TIME, had)
        self.given_at = now
        if state is None:
            return self.outbox.publish(inbox, None, Nothing(unknown=not had))
        return self.send(inbox, state, number)

    cdef int send(self, str inbox, bytes state, uint64_t number) except -1:
        """Send a state, in parts as large as NATS takes."""
        cdef Py_ssize_t size = max(<Py_ssize_t>PART_SIZE_MIN, self.outbox.link.payload_max - PART_OVERHEAD), part
        cdef Py_ssize_t parts = messages.part_count(len(state), size)
        if parts > messages.PARTS_MAX:
            log.error("the state of a session is too large to be moved, and is discarded", bytes=len(state))
            self.counters.count("dropped", "session_state_too_large")
            return self.outbox.publish(inbox, None, Nothing())
        for part in range(parts):
            self.outbox.publish(inbox, None, State(number, part, parts, state[part * size:(part + 1) * size]))
        self.sessions["out"] += 1
        return 0

    cdef Progress receive(self, PendingClaim claim, part) except *:
        """Add a part of a state to the claim that it answers."""
        if claim.parts is not None and part.number < claim.state_number:
            return OUTDATED
        if claim.parts is None or part.number > claim.state_number:
            claim.parts = []
            claim.state_number = part.number
            claim.part_count = part.parts
            claim.size = 0
        claim.size += len(part.data)
        if part.part != len(claim.parts) or part.parts != claim.part_count or claim.size > STATE_SIZE_MAX:
            self.counters.count("dropped", "session_state_malformed")
            return MALFORMED
        claim.parts.append(part.data)
        if len(claim.parts) < claim.part_count:
            return INCOMPLETE
        self.sessions["in"] += 1
        return COMPLETE

    cdef str destination(self, str name):
        """Return where a session has gone within the last minute, or None."""
        moved = self.moved.get(name)
        return None if moved is None or moved.until < self.loop.time() else moved.inbox

    cdef int answer(self, message) except -1:
        """Answer a claim of a session that is not here: send it on to where the session went, if that is known."""
        moved = self.moved.get(message.name)
        if moved is None or moved.until < self.loop.time() or (moved.inbox == message.inbox and not moved.answered):
            return self.outbox.publish(message.inbox, None, Nothing(unknown=True))
        return 0 if moved.inbox == message.inbox else self.pass_on(moved.inbox, message)

    cdef int pass_on(self, str inbox, message) except -1:
        """Send a claim on to the worker that has the session, or gets it."""
        if message.hops >= messages.HOPS_MAX:
            return self.outbox.publish(message.inbox, None, Nothing(unknown=True))
        return self.outbox.publish(inbox, None, msgspec.structs.replace(message, hops=message.hops + 1))

    cdef int came_back(self, str name) except -1:
        """Note that a session is on this worker."""
        if self.moved:
            self.moved.pop(name, None)
        return 0

    cdef bint forward(self, message) except -1:
        """Send a message after its session. Return False if nobody knows where that is, or NATS does not take it."""
        moved = self.moved.get(message.name)
        if moved is None or message.hops >= messages.HOPS_MAX or not self.outbox.link.ready or self.outbox.is_full():
            return False
        if len(message.datum) + len(message.header) + PART_OVERHEAD > self.outbox.link.payload_max:
            return False
        self.messages["out"] += 1
        self.outbox.publish(moved.inbox, None, msgspec.structs.replace(message, hops=message.hops + 1))
        return True

    cdef int forget_old(self, double now) except -1:
        """Forget where sessions have gone some time ago."""
        while self.moved:
            name, moved = next(iter(self.moved.items()))
            if moved.until > now and len(self.moved) < MOVED_MAX:
                break
            del self.moved[name]
        return 0
