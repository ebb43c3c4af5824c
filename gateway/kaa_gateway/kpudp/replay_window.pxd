from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    REPLAY_WORDS = 8                          # of 64 bits
    REPLAY_WINDOW = 64 * (REPLAY_WORDS - 1)   # counters told apart; the word of the newest one is never full


cdef class ReplayWindow:
    # state
    cdef readonly int64_t newest              # -1 before the first
    cdef uint64_t[REPLAY_WORDS] received

    cpdef bint is_new(self, uint32_t counter) noexcept
    cpdef bint add(self, uint32_t counter) noexcept
    cpdef void restart(self) noexcept
