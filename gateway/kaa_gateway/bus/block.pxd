from libc.stdint cimport uint32_t, uint64_t

from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.nats cimport Publication


cdef struct Acknowledgement:
    # The message that is acknowledged when NATS has confirmed a block, in the listener's own terms.
    uint64_t session
    uint32_t token


cdef class Block(Buffer):
    # state
    cdef Acknowledgement* acknowledgements
    cdef Py_ssize_t acknowledgement_count
    cdef Py_ssize_t acknowledgement_capacity
    cdef bint written          # handed to a NATS connection, so that some of it may have arrived
    cdef double opened_at      # when its first publication came, by clock.monotonic; 0 while it has none
    cdef double sealed_at      # by clock.monotonic
    cdef Py_ssize_t unread     # bytes that the link wrote beside its blocks, and that this one's PONG says are read
    cdef Py_ssize_t exports    # live views of the bytes: while there are any, they must not move
    cdef dict cursors          # subject -> offset behind the last PUB reported to have no responders; ONE_SUBJECT
    cdef list traces           # to be told when it is confirmed; None: no message in it is traced

    cdef int append_acknowledgement(self, uint64_t session, uint32_t token) except -1
    cdef bint next_to(self, Slice subject, Publication* publication) except -1
    cdef bint find_next(self, Slice subject, Publication* publication) except -1
    cdef int append_without_header(self, const Publication* publication) except -1
    cdef int take_listeners(self, Block block) except -1
    cdef Py_ssize_t largest(self) noexcept
