from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.receipt cimport Receipt


cdef class InFlight:
    # state
    cdef dict packets               # packet identifier -> PUBLISH to send again as bytes, or None for PUBREL
    cdef dict unsent                # packet identifiers that this connection has not sent yet; None: it has sent all
    cdef dict receipts              # packet identifier -> Receipt, of pushes that have one; None: there is none
    cdef dict deadlines             # packet identifier -> ms since the epoch, of messages that expire
    cdef Py_ssize_t bytes           # of what may have to be sent again
    cdef Py_ssize_t sent_bytes      # of these, what was sent over this connection
    cdef uint16_t last_packet_id
    cdef uint8_t level              # protocol level that the packets are encoded for

    cdef uint16_t next_packet_id(self) except 0
    cdef bint has_room(self, Py_ssize_t size, uint32_t window, Py_ssize_t bytes_max) except -1
    cdef int add(self, uint16_t packet_id, bytes packet, uint8_t level, int64_t deadline) except -1
    cdef int add_receipt(self, uint16_t packet_id, Receipt receipt) except -1
    cdef Py_ssize_t memory(self) except -1
    cdef int end_receipt(self, uint16_t packet_id, str outcome, str reason) except -1
    cdef bint on_puback(self, uint16_t packet_id, bint success) except -1
    cdef bint on_pubrec(self, uint16_t packet_id) except -1
    cdef bint on_pubcomp(self, uint16_t packet_id) except -1
    cdef bint complete(self, uint16_t packet_id, Py_ssize_t before, Py_ssize_t after) except -1
    cdef int end_connection(self) except -1
    cdef int begin_sending_again(self, uint8_t level, uint32_t packet_size_max, Counters counters) except -1
    cdef int encode_again(self, uint8_t level, uint32_t packet_size_max, Counters counters) except -1
    cdef bytes take_unsent(self, uint32_t window, Py_ssize_t bytes_max)
