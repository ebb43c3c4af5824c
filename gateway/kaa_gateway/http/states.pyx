"""The states of an HTTP connection, and which may follow which."""

from libc.stdint cimport uint32_t

cdef tuple NAMES = (
    "reading", "continue due", "pipeline full", "authenticating", "finishing", "refusing", "lingering", "closed",
)

TRANSITIONS = {
    "reading": frozenset(
        {"continue due", "pipeline full", "authenticating", "finishing", "refusing", "closed"}
    ),
    "continue due": frozenset({"reading", "finishing", "refusing", "closed"}),
    "pipeline full": frozenset({"reading", "finishing", "closed"}),
    "authenticating": frozenset({"reading", "finishing", "refusing", "closed"}),
    "finishing": frozenset({"closed"}),
    "refusing": frozenset({"lingering", "closed"}),
    "lingering": frozenset({"closed"}),
    "closed": frozenset(),
}

cdef uint32_t[STATE_COUNT] legal_moves  # of each state, the set of the states that may follow it


cdef int fill_legal_moves() except -1:
    cdef int i, j
    for i in range(STATE_COUNT):
        for j in range(STATE_COUNT):
            if NAMES[j] in TRANSITIONS[NAMES[i]]:
                legal_moves[i] |= <uint32_t>1 << j
    return 0


fill_legal_moves()


cdef int check_move(State before, State after) except -1:
    """Raise RuntimeError unless a connection may go from one state to the other."""
    if not legal_moves[<int>before] >> <int>after & 1:
        raise RuntimeError(f"{NAMES[<int>before]} cannot become {NAMES[<int>after]}")
    return 0
