"""Requests of a protocol that must answer them, until the extension has, or their deadline has passed.

All requests of a transport wait equally long, so they expire in the order in which they came.
"""

from gateway.kp.correlation cimport REQUEST, SEQUENCE_BITS, SEQUENCE_MASK
from gateway.wire.buffer cimport Slice

cdef int GATEWAY_TIMEOUT = 504


cdef inline uint64_t entry_key(uint64_t session, uint32_t sequence) noexcept:
    return session << SEQUENCE_BITS | (sequence & SEQUENCE_MASK)  # as much of it as comes back


cdef class PendingRequests:
    """At most `capacity` requests, each for at most `timeout` seconds."""

    def __init__(self, Py_ssize_t capacity, double timeout):
        self.entries = {}
        self.capacity = capacity
        self.timeout = timeout

    def count(self):
        """Requests waiting for an answer."""
        return len(self.entries)

    cdef bint add(self, Session session, uint32_t sequence, double now) except -1:
        """Wait for an answer to a request of this session; False if there are too many already."""
        if len(self.entries) >= self.capacity:
            return False
        self.entries[entry_key(session.key, sequence)] = (now + self.timeout, session)
        return True

    cdef int forget(self, uint64_t session, uint32_t sequence) except -1:
        """The request is answered, or nobody waits for it any more."""
        self.entries.pop(entry_key(session, sequence), None)
        return 0

    def expire(self, double now):
        """Fail what is past its deadline at `now`, the loop's time; call it a few times a second."""
        cdef Session session
        cdef uint32_t sequence
        overdue = []
        for key, (deadline, _) in self.entries.items():
            if deadline > now:
                break
            overdue.append(key)
        for key in overdue:
            entry = self.entries.pop(key, None)
            if entry is None:
                continue  # forgotten with the connection that an earlier failure ended
            session = entry[1]
            self.expired += 1
            sequence = <uint32_t>(<uint64_t>key & SEQUENCE_MASK)
            session.fail(
                Slice(NULL, 0), REQUEST, True, sequence, GATEWAY_TIMEOUT, "The extension did not answer in time"
            )
