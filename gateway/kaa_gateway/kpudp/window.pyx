"""Which message IDs of a KP/UDP peer have been seen: the newest, and a bit for each of the WINDOW before it.

Source: docs/kp-over-udp.md, "Duplicates".
"""

from libc.stdint cimport int16_t
from libc.string cimport memset


cdef class DuplicateWindow:
    """Message IDs count modulo 65536: one is newer than another if it is less than 32768 ahead."""

    cpdef Sighting look(self, uint16_t message_id) noexcept:
        """What is known of a message ID. Hot path."""
        cdef int16_t ahead = <int16_t>(message_id - self.newest)
        cdef uint64_t bit = <uint64_t>1 << (message_id % 64)
        cdef int word = message_id % WINDOW // 64
        if not self.begun or ahead > 0:
            return UNSEEN
        if ahead <= -WINDOW:
            return OUTDATED
        if not self.seen[word] & bit:
            return UNSEEN
        return ANSWERED if self.answered[word] & bit else SEEN

    cpdef void see(self, uint16_t message_id) noexcept:
        """Remember an ID that `look` has called UNSEEN. Hot path."""
        cdef int ahead = <int16_t>(message_id - self.newest), i
        cdef uint16_t passed
        if not self.begun or ahead >= WINDOW:
            memset(self.seen, 0, sizeof(self.seen))
            memset(self.answered, 0, sizeof(self.answered))
            self.begun = True
            self.newest = message_id
        elif ahead > 0:
            for i in range(1, ahead + 1):
                passed = <uint16_t>(self.newest + i)
                self.forget(passed)
            self.newest = message_id
        self.seen[message_id % WINDOW // 64] |= <uint64_t>1 << (message_id % 64)

    cpdef void answer(self, uint16_t message_id) noexcept:
        """Remember that an ID was answered, if it has not left the window. Hot path."""
        if self.look(message_id) == SEEN:
            self.answered[message_id % WINDOW // 64] |= <uint64_t>1 << (message_id % 64)

    cpdef void forget(self, uint16_t message_id) noexcept:
        """Let an ID within the window be unseen again."""
        cdef uint64_t bit = <uint64_t>1 << (message_id % 64)
        self.seen[message_id % WINDOW // 64] &= ~bit
        self.answered[message_id % WINDOW // 64] &= ~bit
