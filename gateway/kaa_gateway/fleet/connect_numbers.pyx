"""The numbers of CONNECTs: the time, and which worker. The highest number wins everywhere.

The clocks of workers need not agree: each adds what it has seen others to be ahead.
"""

import secrets

from kaa_gateway.clock cimport now_us

cdef enum:
    TAG_BITS = 12

cdef int64_t AHEAD_MAX = 3_600_000_000  # us; a number from later than that is not believed


cdef class ConnectNumbers:
    """The numbers that one worker gives."""

    def __init__(self):
        self.tag = secrets.randbits(TAG_BITS)

    cdef uint64_t next(self) noexcept:
        """Return the number of a new CONNECT, which is higher than all that are known."""
        cdef uint64_t number = <uint64_t>(now_us() + self.ahead) << TAG_BITS | self.tag
        if number <= self.last:
            number = self.last + (1 << TAG_BITS)
        self.last = number
        return number

    cdef uint64_t after(self, uint64_t number) noexcept:
        """Return the number of this worker that comes next after another one: no two workers that ask have the same."""
        return ((number >> TAG_BITS) + 1) << TAG_BITS | self.tag

    cdef int observe(self, uint64_t number) except -1:
        """Note the number of another worker, so that ours are higher from now on."""
        cdef int64_t ahead = <int64_t>(number >> TAG_BITS) - now_us()
        if self.ahead < ahead <= AHEAD_MAX:
            self.ahead = ahead
        return 0
