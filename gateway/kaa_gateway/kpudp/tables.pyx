"""The bounded tables of the KP/UDP server: message IDs received, peers, and messages that wait for their answers.

What a peer does with them is its own business (peer.pyx).

Source: docs/kp-over-udp.md, "Duplicates", "Security considerations" and "Confirmable messages".
"""

import random
from collections import deque

from libc.stdint cimport int16_t
from libc.string cimport memset

cdef enum:
    UNPROVED_PART = 4      # one place in so many is for peers that have not proved their address
    TICKS_PER_SECOND = 10  # of the retransmission timer

# Part of the first wait that is random, so that messages lost together are not sent again together.
cdef double JITTER = 0.5


cdef class DuplicateWindow:
    """The message IDs that a peer has used: the newest, and a bit for each of the WINDOW up to it.

    IDs count modulo 65536. One is newer than another if it is less than 32768 ahead.
    """

    cpdef MessageIdStatus look_up(self, uint16_t message_id) noexcept:
        """Return what is known of a message ID. Hot path."""
        cdef int16_t ahead = <int16_t>(message_id - self.newest)
        cdef uint64_t bit = <uint64_t>1 << (message_id % 64)
        cdef int word = message_id % WINDOW // 64
        if not self.begun or ahead > 0:
            return NEW
        if ahead <= -WINDOW:
            return OUTDATED
        if not self.received[word] & bit:
            return NEW
        return ANSWERED if self.answered[word] & bit else UNANSWERED

    cpdef void add(self, uint16_t message_id) noexcept:
        """Remember an ID that `look_up` has called NEW. Hot path."""
        cdef int ahead = <int16_t>(message_id - self.newest), i
        cdef uint16_t passed
        if not self.begun or ahead >= WINDOW:
            memset(self.received, 0, sizeof(self.received))
            memset(self.answered, 0, sizeof(self.answered))
            self.begun = True
            self.newest = message_id
        elif ahead > 0:
            for i in range(1, ahead + 1):
                passed = <uint16_t>(self.newest + i)
                self.clear(passed)
            self.newest = message_id
        self.received[message_id % WINDOW // 64] |= <uint64_t>1 << (message_id % 64)

    cpdef void mark_answered(self, uint16_t message_id) noexcept:
        """Remember that an ID was answered, if it has not left the window. Hot path."""
        if self.look_up(message_id) == UNANSWERED:
            self.answered[message_id % WINDOW // 64] |= <uint64_t>1 << (message_id % 64)

    cpdef void remove(self, uint16_t message_id) noexcept:
        """Let an ID be new again. One outside the window is left alone: its bit belongs to another."""
        cdef MessageIdStatus status = self.look_up(message_id)
        if status == UNANSWERED or status == ANSWERED:
            self.clear(message_id)

    cdef void clear(self, uint16_t message_id) noexcept:
        """Clear the bits of an ID. Hot path."""
        cdef uint64_t bit = <uint64_t>1 << (message_id % 64)
        self.received[message_id % WINDOW // 64] &= ~bit
        self.answered[message_id % WINDOW // 64] &= ~bit


cdef class Place:
    """A peer's place in the table."""


cdef class Queue:
    """A chain of places, the longest silent first. Appending and removing take constant time."""

    cdef int append(self, Place place) except -1:
        """Put a place at the end. Hot path."""
        place.queue = self
        place.older = self.last
        if self.last is None:
            self.first = place
        else:
            self.last.newer = place
        self.last = place
        self.count += 1
        return 0

    cdef int remove(self, Place place) except -1:
        """Take out a place that is in it. Hot path."""
        if place.older is None:
            self.first = place.newer
        else:
            place.older.newer = place.newer
        if place.newer is None:
            self.last = place.older
        else:
            place.newer.older = place.older
        place.older = place.newer = place.queue = None
        self.count -= 1
        return 0


cdef class Partition:
    """A part of the table: `capacity` places for which its peers compete."""

    def __init__(self, Py_ssize_t capacity):
        self.capacity = capacity
        self.idle = Queue()
        self.busy = Queue()

    cdef Place excess(self):
        """Return the place that has to be given up, or None if there are not too many."""
        if self.idle.count + self.busy.count <= self.capacity:
            return None
        return self.busy.first if self.idle.first is None else self.idle.first


cdef class PeerTable:
    """The peers by address, at most `capacity` of them, at least 8.

    Peers that have not proved their address have places of their own, so that forged source addresses evict nobody who
    has. Within a partition the longest silent peer goes first, one in the middle of an exchange last. The caller ends
    the peer whose place `add`, `touch` or `requeue` returns.
    """

    def __init__(self, Py_ssize_t capacity):
        self.peers = AddressTable()
        self.unproved = Partition(capacity // UNPROVED_PART)
        self.proved = Partition(capacity - capacity // UNPROVED_PART)

    def counts(self):
        """Return (peers whose address is proved, others)."""
        return (
            self.proved.idle.count + self.proved.busy.count, self.unproved.idle.count + self.unproved.busy.count
        )

    cdef object find(self, const Address* address):
        """Return the peer at an address, or None. Hot path."""
        return self.peers.find(address)

    cdef Place add(self, Place place):
        """Add a peer that is not busy. Return the place that has to be given up for it, or None.

        It is found by its address if no other peer is: a second one has to prove itself first.
        """
        if self.peers.find(&place.address) is None:
            self.peers.add(&place.address, place.peer)
        return self.requeue(place, False)

    cdef Place touch(self, Place place, bint busy, double now):
        """Note that a datagram has come from a peer. Return the place that has to be given up, or None. Hot path."""
        self.turns += 1
        place.turn = self.turns
        place.last_received = now
        return self.requeue(place, busy)

    cdef Place requeue(self, Place place, bint busy):
        """Put a place at the end of the queue where it belongs. Return the place to be given up, or None. Hot path."""
        cdef Partition partition = self.proved if place.proved else self.unproved
        cdef Queue queue = partition.busy if busy else partition.idle
        cdef Place excess
        if place.queue is queue and queue.last is place:
            return None
        if place.queue is not None:
            place.queue.remove(place)
        queue.append(place)
        excess = partition.excess()
        if excess is place:  # all others are busy: the oldest of those goes, not the newcomer
            return partition.busy.first
        return excess

    cdef int remove(self, Place place, Place successor) except -1:
        """Give up the place of a peer that is about to end. The peer of `successor`, if any, has its address then."""
        if place.queue is not None:
            place.queue.remove(place)
            if self.peers.find(&place.address) is place.peer:
                self.peers.remove(&place.address)
                if successor is not None:
                    self.peers.add(&successor.address, successor.peer)
        place.peer = None
        return 0

    cdef Place silent_since(self, double deadline):
        """Return the place of a peer from which nothing has come since `deadline`, or None."""
        cdef Queue queue
        for queue in (self.unproved.idle, self.unproved.busy, self.proved.idle, self.proved.busy):
            if queue.first is not None and queue.first.last_received < deadline:
                return queue.first
        return None


cdef class Transmission:
    """A confirmable message of ours, until it is acknowledged or given up."""


cdef class RetransmissionTimer:
    """The timer of unacknowledged messages, with places for at most `capacity` of them.

    A place is reserved before there is a message: the answer to a request must not fail for want of one. `ack_timeout`
    is the wait before the first retransmission, in seconds.
    """

    def __init__(self, Py_ssize_t capacity, double ack_timeout, double now):
        cdef Py_ssize_t longest_wait = <Py_ssize_t>(
            ack_timeout * TICKS_PER_SECOND * (1 + JITTER) * (1 << (TRANSMISSIONS_MAX - 1))
        )
        self.capacity = capacity
        self.ack_timeout = ack_timeout
        self.wheel = [[] for _ in range(longest_wait + 2)]
        self.started = now
        self.overdue = deque()

    cdef bint reserve(self) noexcept:
        """Take a place for a confirmable message. Return False if there is none."""
        if self.count >= self.capacity:
            return False
        self.count += 1
        return True

    cdef int release(self) except -1:
        """Give a place back."""
        self.count -= 1
        return 0

    cdef int start(self, Transmission transmission) except -1:
        """Let a message that is sent for the first time be due after `ack_timeout` and a random part of it."""
        transmission.count = 1
        transmission.wait = max(
            <int64_t>(self.ack_timeout * TICKS_PER_SECOND * (1 + JITTER * <double>random.random())), 1
        )
        self.wheel[(self.tick + transmission.wait) % len(self.wheel)].append(transmission)
        return 0

    cdef int back_off(self, Transmission transmission) except -1:
        """Let a message that is sent again be due after twice the wait before."""
        transmission.count += 1
        transmission.wait *= 2
        self.wheel[(self.tick + transmission.wait) % len(self.wheel)].append(transmission)
        return 0

    cdef list due(self, double now, Py_ssize_t limit):
        """Take out what is due at loop time `now`, at most so many; the others are left in `overdue`.

        Those acknowledged in the meantime are among them.
        """
        cdef int64_t target = <int64_t>((now - self.started) * TICKS_PER_SECOND)
        cdef int64_t size = len(self.wheel), slot
        while self.tick < target:
            self.tick += 1
            slot = self.tick % size
            if self.wheel[slot]:
                self.overdue.extend(self.wheel[slot])
                self.wheel[slot] = []
        return [self.overdue.popleft() for _ in range(min(limit, len(self.overdue)))]
