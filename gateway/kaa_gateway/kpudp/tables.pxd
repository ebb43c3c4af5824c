from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.net.addresses cimport Address, AddressTable

cdef enum:
    WINDOW = 1024          # message IDs remembered, docs/kp-over-udp.md
    WINDOW_WORDS = 16      # of 64 bits, one for each of them
    TRANSMISSIONS_MAX = 6  # of a confirmable message


cdef enum MessageIdStatus:
    NEW
    UNANSWERED   # received, and not answered yet
    ANSWERED
    OUTDATED     # older than the window: nothing is known of it


cdef class DuplicateWindow:
    # state
    cdef bint begun
    cdef uint16_t newest
    cdef uint64_t[WINDOW_WORDS] received
    cdef uint64_t[WINDOW_WORDS] answered

    cpdef MessageIdStatus look_up(self, uint16_t message_id) noexcept
    cpdef void add(self, uint16_t message_id) noexcept
    cpdef void mark_answered(self, uint16_t message_id) noexcept
    cpdef void remove(self, uint16_t message_id) noexcept
    cdef void clear(self, uint16_t message_id) noexcept


cdef class Queue


cdef class Place:
    # A peer's place in the table.
    # wiring
    cdef object peer             # KpudpPeer; None once the place is given up
    cdef Address address
    # state
    cdef double last_received    # loop time of the last datagram from the peer, seconds
    cdef uint64_t turn           # the order of those datagrams among all peers
    cdef bint proved             # the peer has repeated what was sent to its address
    cdef Queue queue             # that it is in, or None
    cdef Place older
    cdef Place newer


cdef class Queue:
    # state: a chain of places, the longest silent first
    cdef Place first
    cdef Place last
    cdef Py_ssize_t count

    cdef int append(self, Place place) except -1
    cdef int remove(self, Place place) except -1


cdef class Partition:
    # Places for which peers compete.
    cdef Py_ssize_t capacity
    cdef Queue idle
    cdef Queue busy          # their peers are in the middle of an exchange

    cdef Place excess(self)


cdef class PeerTable:
    # state
    cdef AddressTable peers
    cdef Partition unproved
    cdef Partition proved
    cdef uint64_t turns

    cdef object find(self, const Address* address)
    cdef Place add(self, Place place)
    cdef Place touch(self, Place place, bint busy, double now)
    cdef Place requeue(self, Place place, bint busy)
    cdef int remove(self, Place place, Place successor) except -1
    cdef Place silent_since(self, double deadline)


cdef class Transmission:
    # A confirmable message of ours.
    # wiring
    cdef object peer             # KpudpPeer; None if it had ended
    # state
    cdef uint8_t type
    cdef uint16_t message_id
    cdef uint16_t request_id     # of a RESPONSE
    cdef Receipt receipt         # of a PUSH whose extension wants one, else None
    cdef bytes frame             # None once it is acknowledged or given up
    cdef int count               # how often it was sent
    cdef int64_t wait            # ticks of the timer before it is sent again


cdef class RetransmissionTimer:
    # settings
    cdef Py_ssize_t capacity         # places for confirmable messages
    cdef double ack_timeout          # seconds
    # state
    cdef readonly Py_ssize_t count   # places that are taken
    cdef object overdue              # deque of those that are due and were not returned yet
    cdef list wheel                  # of lists of Transmission, by the tick at which they are due
    cdef int64_t tick
    cdef double started              # loop time of tick 0

    cdef bint reserve(self) noexcept
    cdef int release(self) except -1
    cdef int start(self, Transmission transmission) except -1
    cdef int back_off(self, Transmission transmission) except -1
    cdef list due(self, double now, Py_ssize_t limit)
