from kaa_gateway.kp.receipt cimport Receipt

from libc.stdint cimport int64_t, uint16_t


cdef class Transmission:
    # A confirmable message of ours, until it is acknowledged or given up.
    # wiring
    cdef object peer                 # CoapPeer; None if it had ended
    cdef Receipt receipt             # of the push that it carries, or None
    cdef object observation          # the Observation whose notification it is; None for a response
    # state
    cdef uint16_t message_id
    cdef bytes datagram
    cdef double timeout              # seconds until the next retransmission
    cdef int retransmissions         # so far
    cdef bint held                   # until more bytes may be sent to its peer
    cdef int64_t slot                # of the timer

    cdef bint next_timeout(self) noexcept


cdef class RetransmissionTimer:
    # settings
    cdef double ack_timeout          # seconds
    # state
    cdef object overdue           # deque of those that are due and were not returned yet
    cdef dict slots                  # tenth of a second -> {Transmission: None}
    cdef int64_t now                 # the last slot that is over
    cdef readonly Py_ssize_t count

    cdef Transmission start(self, object peer, uint16_t message_id, bytes datagram, double now)
    cdef int add(self, Transmission transmission, double deadline) except -1
    cdef int remove(self, Transmission transmission) except -1
    cdef list due(self, double now, Py_ssize_t limit)
