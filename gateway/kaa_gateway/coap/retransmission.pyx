"""Retransmission of confirmable messages: which are sent again, and when.

No message has a timer of its own: they wait in slots of a tenth of a second. The peer sends them.

Source: RFC 7252 section 4.2, and 4.8 for the parameters.
"""

import random
from collections import deque

cdef enum:
    MAX_RETRANSMIT = 4

cdef double ACK_RANDOM_FACTOR = 1.5
cdef double SLOTS_PER_SECOND = 10.0


cdef class Transmission:
    """A confirmable message that is sent again until it is acknowledged."""

    cdef bint next_timeout(self) noexcept:
        """Count a retransmission and double the time-out. Return False if there were MAX_RETRANSMIT already."""
        if self.retransmissions == MAX_RETRANSMIT:
            return False
        self.retransmissions += 1
        self.timeout *= 2
        return True


cdef class RetransmissionTimer:
    """Transmissions by the tenth of a second in which they are due. Times are the loop's."""

    def __init__(self, double ack_timeout, double now):
        self.ack_timeout = ack_timeout
        self.slots = {}
        self.overdue = deque()
        self.now = <int64_t>(now * SLOTS_PER_SECOND)

    cdef Transmission start(self, object peer, uint16_t message_id, bytes datagram, double now):
        """Return the transmission of a message that is sent for the first time now."""
        cdef Transmission transmission = Transmission()
        transmission.peer = peer
        transmission.message_id = message_id
        transmission.datagram = datagram
        transmission.timeout = self.ack_timeout * (1 + random.random() * (ACK_RANDOM_FACTOR - 1))
        self.add(transmission, now + transmission.timeout)
        return transmission

    cdef int add(self, Transmission transmission, double deadline) except -1:
        """Let a transmission be due at `deadline`."""
        transmission.slot = max(<int64_t>(deadline * SLOTS_PER_SECOND), self.now) + 1
        slot = self.slots.get(transmission.slot)
        if slot is None:
            slot = self.slots[transmission.slot] = {}
        slot[transmission] = None
        self.count += 1
        return 0

    cdef int remove(self, Transmission transmission) except -1:
        """Remove a transmission, if it is waiting."""
        slot = self.slots.get(transmission.slot)
        if slot is not None and slot.pop(transmission, self) is None:
            self.count -= 1
            if not slot:
                del self.slots[transmission.slot]
        return 0

    cdef list due(self, double now, Py_ssize_t limit):
        """Remove and return transmissions that are due at `now`, at most so many; the others are left in `overdue`.

        Some may have been acknowledged since they became due.
        """
        cdef int64_t slot, last = <int64_t>(now * SLOTS_PER_SECOND)
        cdef list result
        if last - self.now > len(self.slots):
            passed = sorted([slot for slot in self.slots if slot <= last])
        else:
            passed = range(self.now + 1, last + 1)
        for slot in passed:
            transmissions = self.slots.pop(slot, None)
            if transmissions is not None:
                self.overdue.extend(transmissions)
        self.now = last
        result = [self.overdue.popleft() for _ in range(min(limit, len(self.overdue)))]
        self.count -= len(result)
        return result
