cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint64_t

from kaa_gateway.kpudp.context cimport KpudpContext
from kaa_gateway.kpudp.tables cimport Place, Transmission
from kaa_gateway.wire.buffer cimport Buffer, Slice


@cython.final
cdef class Outbox:
    # wiring
    cdef KpudpContext context
    cdef object peer             # KpudpPeer; None once it has ended
    cdef Place place
    # state
    cdef uint8_t epoch
    cdef uint64_t received_bytes
    cdef uint64_t sent_bytes
    cdef Buffer output           # the datagram of this tick, or None
    cdef uint16_t last_message_id
    cdef dict unacknowledged     # message ID -> Transmission
    cdef Transmission challenge  # the PING that proves the address, or None

    cdef uint8_t* reserve_frame(self, Py_ssize_t size) except? NULL
    cdef int send_output(self) except -1
    cdef int send_ack(self, uint16_t message_id) except -1
    cdef int send_reset(self, uint16_t message_id, uint16_t reason) except -1
    cdef int send_pong(self, uint16_t message_id, Slice data) except -1
    cdef int challenge_address(self) except -1
    cdef bint is_proof(self, uint16_t message_id, Slice data) noexcept
    cdef uint16_t next_message_id(self) except? 0
    cdef Transmission send_confirmable(self, uint8_t type, uint16_t message_id, bytes frame)
    cdef int transmit(self, Transmission transmission) except -1
    cdef int transmit_all(self) except -1
    cdef bint retransmit(self, Transmission transmission) except -1
    cdef Transmission complete(self, uint16_t message_id)
    cdef int close(self) except -1
