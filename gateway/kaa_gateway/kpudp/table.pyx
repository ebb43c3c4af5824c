"""The peers of the KP/UDP server by address, bounded, and which of them goes when there are too many.

Peers that have not proved their address have places of their own, so that forged source addresses displace nobody who
has. Among equals the one longest unheard goes, those in the middle of an exchange last.

Source: docs/kp-over-udp.md, "Security considerations".
"""

cdef enum:
    STRANGERS_PART = 4  # one place in so many is for peers that have not proved their address


cdef class Entry(Session):
    """A peer's place in the table."""

    cdef bint is_busy(self) noexcept:
        """Whether the peer is in the middle of an exchange."""
        return False


cdef class Queue:
    """A chain of entries, the longest unheard first: append and remove take the same time whatever its length."""

    cdef int append(self, Entry entry) except -1:
        entry.queue = self
        entry.older = self.last
        if self.last is None:
            self.first = entry
        else:
            self.last.newer = entry
        self.last = entry
        self.count += 1
        return 0

    cdef int remove(self, Entry entry) except -1:
        if entry.older is None:
            self.first = entry.newer
        else:
            entry.older.newer = entry.newer
        if entry.newer is None:
            self.last = entry.older
        else:
            entry.newer.older = entry.older
        entry.older = entry.newer = entry.queue = None
        self.count -= 1
        return 0


cdef class Group:
    """Entries that compete for `capacity` places."""

    def __init__(self, Py_ssize_t capacity):
        self.capacity = capacity
        self.idle = Queue()
        self.busy = Queue()

    cdef Entry excess(self):
        """The entry that has to go, or None if there are not too many."""
        if self.idle.count + self.busy.count <= self.capacity:
            return None
        return self.busy.first if self.idle.first is None else self.idle.first


cdef class Table:
    """At most `capacity` entries, at least 8. What `add`, `hear` and `place` return has to be removed by the caller."""

    def __init__(self, Py_ssize_t capacity):
        self.entries = AddressTable()
        self.strangers = Group(capacity // STRANGERS_PART)
        self.proved = Group(capacity - capacity // STRANGERS_PART)

    def counts(self):
        """(peers whose address is proved, others)."""
        return (
            self.proved.idle.count + self.proved.busy.count, self.strangers.idle.count + self.strangers.busy.count
        )

    cdef Entry find(self, const Address* address):
        """The entry of an address, or None. Hot path."""
        return <Entry>self.entries.find(address)

    cdef Entry add(self, Entry entry):
        self.entries.add(&entry.address, entry)
        return self.place(entry)

    cdef Entry hear(self, Entry entry, double now):
        """A datagram has come from the peer. Hot path."""
        self.turns += 1
        entry.turn = self.turns
        entry.heard = now
        return self.place(entry)

    cdef Entry place(self, Entry entry):
        """Put an entry at the end of the queue that it belongs to now. Hot path."""
        cdef Group group = self.proved if entry.proved else self.strangers
        cdef Queue queue = group.busy if entry.is_busy() else group.idle
        cdef Entry excess
        if entry.queue is queue and queue.last is entry:
            return None
        if entry.queue is not None:
            entry.queue.remove(entry)
        queue.append(entry)
        excess = group.excess()
        if excess is entry:  # all others are busy: the oldest of those goes, not the newcomer
            return group.busy.first
        return excess

    cdef int remove(self, Entry entry) except -1:
        if entry.queue is not None:
            entry.queue.remove(entry)
            self.entries.remove(&entry.address)
        return 0

    cdef Entry overdue(self, double deadline):
        """A peer not heard since `deadline`, or None."""
        cdef Queue queue
        for queue in (self.strangers.idle, self.strangers.busy, self.proved.idle, self.proved.busy):
            if queue.first is not None and queue.first.heard < deadline:
                return queue.first
        return None
