from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.kpudp.table cimport Entry
from kaa_gateway.net.udp cimport DatagramCore
from kaa_gateway.wire.buffer cimport Buffer, Slice


cdef class Outbox


cdef class Correspondent(Entry)


cdef class Outgoing:
    # A confirmable message of ours.
    cdef Correspondent to
    cdef uint8_t type
    cdef uint16_t message_id
    cdef uint16_t request_id     # of a RESPONSE
    cdef bytes frame             # or the data of a PING; None once it is answered
    cdef int transmissions
    cdef int64_t wait            # ticks of the wheel before it is sent again


cdef class Correspondent(Entry):
    # wiring
    cdef Outbox outbox
    # state
    cdef uint8_t epoch
    cdef Buffer output           # the datagram of this tick, or None
    cdef dict unacknowledged     # message ID -> Outgoing
    cdef uint16_t last_message_id
    cdef Outgoing challenge      # the PING that proves the address, or None
    cdef uint64_t received_bytes
    cdef uint64_t sent_bytes

    cdef uint8_t* room(self, Py_ssize_t size) except? NULL
    cdef int acknowledge_message(self, uint16_t message_id) except -1
    cdef int reset(self, uint16_t message_id, uint16_t reason) except -1
    cdef int pong(self, uint16_t message_id, Slice data) except -1
    cdef int ask_for_proof(self) except -1
    cdef bint check_proof(self, uint16_t message_id, Slice data) except -1
    cdef uint16_t next_message_id(self) except? 0
    cdef Outgoing begin(self, uint8_t type, uint16_t message_id, bytes frame)
    cdef int transmit(self, Outgoing outgoing) except -1
    cdef Outgoing conclude(self, uint16_t message_id)
    cdef int give_up(self, Outgoing outgoing) except -1
    cdef int abandon_all(self) except -1


cdef class Outbox:
    # wiring
    cdef object loop
    cdef DatagramCore core
    cdef Counters counters
    cdef Py_ssize_t capacity         # confirmable messages, those reserved included
    cdef double ack_timeout          # seconds
    # state
    cdef list waiting                # Correspondents that have output in this tick
    cdef list spare                  # Buffers to use again
    cdef object flush_callback
    cdef readonly Py_ssize_t count   # places taken, of capacity
    cdef list wheel                  # of lists of Outgoing, by the tick at which they are due
    cdef int64_t tick
    cdef double started              # loop time of tick 0

    cdef bint reserve(self) noexcept
    cdef int release(self) except -1
    cdef int schedule(self, Outgoing outgoing) except -1
    cdef int open_output(self, Correspondent to) except -1
    cdef int send(self, Correspondent to) except -1
    cdef int check(self, double now) except -1
