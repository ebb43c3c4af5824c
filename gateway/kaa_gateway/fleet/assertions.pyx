"""What a worker tells others of the sessions that it has, so that of two sessions of a client the newer one remains.

An entry is told of a moment after its CONNECT, and all entries are when NATS, or another worker, is there again.
"""

cdef enum:
    WAITING_BYTES_MAX = 4 * 1024 * 1024  # that wait for NATS before the next session is told of

cdef double PAUSE = 0.05           # seconds
cdef double SPREADING_TIME = 3.0   # seconds in which the servers of a NATS cluster surely learn of subscriptions


cdef class Assertions:
    """Tells other workers of `entries`, which belong to the directory, by `tell`."""

    def __init__(
        self, slices, Outbox outbox not None, OtherWorkers others not None, dict entries not None, tell not None,
    ):
        self.loop = outbox.link.loop
        self.slices = slices
        self.outbox = outbox
        self.others = others
        self.entries = entries
        self.tell = tell
        self.new_entries = []

    cdef int note(self, DirectoryEntry entry) except -1:
        """Tell of a new CONNECT with the next `tell_new`.

        Not at once: two claims at the same time, over two servers of a NATS cluster, may not find each other. While
        this worker is alone nothing is noted, because another one that appears is told of all entries.
        """
        if not self.others.alone:
            self.new_entries.append((entry, entry.number))
        return 0

    cdef int tell_new(self) except -1:
        """Tell other workers of CONNECTs since the last time."""
        cdef DirectoryEntry entry
        new, self.new_entries = self.new_entries, []
        if self.others.alone or not self.outbox.link.ready:
            return 0  # all are told of when another worker appears, or with the next connection
        for entry, number in new:
            if entry.sid and entry.number == number and entry.yielded_to is None:
                self.tell(entry)
        return 0

    cdef int tell_all_twice(self) except -1:
        """Tell other workers of all entries, and once more when the subscriptions of all workers have spread.

        After the death of a NATS server, several workers subscribe anew at other servers. Until these have told each
        other, neither of two workers that have a session of the same client hears the other.
        """
        self.tell_all()
        self.loop.call_later(SPREADING_TIME, self.tell_all)
        return 0

    def tell_all(self):
        """Tell other workers of all entries."""
        self.slices.run(self.tell_each(iter(list(self.entries.values()))))

    def tell_each(self, entries not None):
        """Tell other workers of these entries, and wait while NATS takes the messages more slowly than they come."""
        cdef DirectoryEntry entry
        for entry in entries:
            if entry.sid and entry.yielded_to is None and not self.others.alone and self.outbox.link.ready:
                self.tell(entry)
                if self.outbox.waiting() > WAITING_BYTES_MAX:
                    self.loop.call_later(PAUSE, self.go_on, entries)
                    return
            yield 1

    def go_on(self, entries not None):
        """Tell other workers of the remaining entries, when NATS has taken enough of what waits."""
        if self.outbox.link.ready and self.outbox.waiting() > WAITING_BYTES_MAX:
            self.loop.call_later(PAUSE, self.go_on, entries)
        else:
            self.slices.run(self.tell_each(entries))
