"""The counters of the authentic datagrams of a generation, so that none counts twice.

Source: RFC 6479; docs/kp-over-udp-secure.md, "Replay".
"""

from libc.string cimport memset


cdef class ReplayWindow:
    """A ring of bits for the newest counter and at least REPLAY_WINDOW before it. What is older counts as received."""

    def __cinit__(self):
        self.newest = -1

    cpdef bint is_new(self, uint32_t counter) noexcept:
        """Return whether a counter has not been received. Hot path."""
        if counter > self.newest:
            return True
        if (self.newest >> 6) - (counter >> 6) >= REPLAY_WORDS:
            return False
        return not self.received[(counter >> 6) % REPLAY_WORDS] & <uint64_t>1 << (counter & 63)

    cpdef bint add(self, uint32_t counter) noexcept:
        """Note a counter that is new. Return whether it is the newest. Hot path."""
        cdef int64_t word = counter >> 6, passed
        cdef bint newer = counter > self.newest
        if newer:
            passed = word - (self.newest >> 6)
            if passed >= REPLAY_WORDS:
                memset(self.received, 0, sizeof(self.received))
            else:
                while passed > 0:
                    self.received[(word - passed + 1) % REPLAY_WORDS] = 0
                    passed -= 1
            self.newest = counter
        self.received[word % REPLAY_WORDS] |= <uint64_t>1 << (counter & 63)
        return newer

    cpdef void restart(self) noexcept:
        """Forget all counters."""
        self.newest = -1
        memset(self.received, 0, sizeof(self.received))
