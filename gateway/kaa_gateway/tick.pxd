cdef class TickOutput:
    # state
    cdef bint due              # it waits in a Tick ...
    cdef TickOutput next_due   # ... before this one

    cdef int write_due(self) except -1


cdef class Tick:
    # wiring
    cdef object loop
    cdef object callback
    # state
    cdef TickOutput first      # of those that are due, in the order in which they came; None if there are none
    cdef TickOutput last
    cdef bint in_pass          # whoever began it writes the outputs
    cdef bint scheduled

    cdef int add(self, TickOutput output) except -1
    cdef int write_later(self) except -1
    cdef bint begin(self) noexcept
    cdef int end(self) except -1


cdef Tick tick_of(loop)
