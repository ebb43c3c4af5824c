"""The last pushes to one client, which are not delivered again if an extension repeats them.

kp/downlink remembers them too, for all sessions of a worker; these move with the session to another worker. A digest
is the same on every worker.
"""

from kaa_gateway.mqtt.received cimport digest_of


cdef class RecentPushes:
    """Digests of pushes; the oldest is forgotten for a new one."""

    cdef bint has(self, uint64_t digest) noexcept:
        """Return whether a push is remembered. Hot path."""
        cdef int i
        for i in range(self.count):
            if self.digests[i] == digest:
                return True
        return False

    cdef int add(self, uint64_t digest) noexcept:
        """Remember a push. Hot path."""
        self.digests[self.next] = digest
        self.next = (self.next + 1) % REMEMBERED
        self.count = min(self.count + 1, <int>REMEMBERED)
        return 0

    cdef list copy(self):
        """Return the digests, the oldest first."""
        cdef int i
        return [self.digests[(self.next + REMEMBERED - self.count + i) % REMEMBERED] for i in range(self.count)]


cdef uint64_t digest_of_push(Slice correlation_id, Slice resource_path, Slice payload) noexcept nogil:
    """Return a digest of what makes a push unique. Hot path."""
    return digest_of(correlation_id, resource_path) * 0x9E3779B97F4A7C15ULL ^ digest_of(resource_path, payload)
