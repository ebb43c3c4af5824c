from libc.stdint cimport uint16_t, uint64_t

cdef enum:
    WINDOW = 1024      # message IDs remembered, docs/kp-over-udp.md
    WINDOW_WORDS = 16  # that many bits, in words


cdef enum Sighting:
    UNSEEN
    SEEN       # and not yet answered
    ANSWERED
    OUTDATED   # older than the window: nothing is known of it


cdef class DuplicateWindow:
    # state
    cdef bint begun
    cdef uint16_t newest
    cdef uint64_t[WINDOW_WORDS] seen
    cdef uint64_t[WINDOW_WORDS] answered

    cpdef Sighting look(self, uint16_t message_id) noexcept
    cpdef void see(self, uint16_t message_id) noexcept
    cpdef void answer(self, uint16_t message_id) noexcept
    cpdef void forget(self, uint16_t message_id) noexcept
