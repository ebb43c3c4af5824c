cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t

from kaa_gateway.coap.context cimport CoapContext
from kaa_gateway.coap.message_stream cimport MessageStream
from kaa_gateway.coap.observations cimport Observation
from kaa_gateway.coap.options cimport Response
from kaa_gateway.coap.retransmission cimport Transmission
from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.net.addresses cimport Address
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.coap cimport Type


cdef enum:
    ANY_SIZE = 1 << 30              # bytes

cdef dict NONE_SENT


@cython.final
cdef class Outbox:
    # wiring
    cdef CoapContext context
    cdef object peer                     # CoapPeer; None once it is gone
    cdef Address address
    cdef MessageStream stream            # None over datagrams
    # state
    cdef uint16_t last_message_id
    cdef dict transmissions              # message ID of ours -> Transmission
    cdef int64_t message_size_max        # bytes of a message that its transport can carry
    cdef int64_t amplification_credit    # bytes that may be sent until its address is verified
    cdef double verified_until           # loop time
    cdef bint observes                   # the peer has observations
    cdef bint verified_observer          # its address stays verified for as long as it observes
    cdef bint holds                      # messages wait until more bytes may be sent

    cdef dict describe(self)
    cdef uint16_t new_message_id(self) noexcept
    cdef bint encode(
        self, Type type, uint16_t message_id, Slice token, Response* response, Slice transfer_key, int64_t limit
    ) except -1
    cdef bint fit(self, Type type, uint16_t message_id, Slice token, Response* response, int64_t limit) except -1
    cdef int hold_confirmable(
        self, uint16_t message_id, Slice token, Response* response, Slice transfer_key
    ) except -1
    cdef int send_confirmable(self, uint16_t message_id, Observation observation) except -1
    cdef int add_transmission(self, Transmission transmission) except -1
    cdef int set_receipt(self, uint16_t message_id, Receipt receipt) except -1
    cdef int send(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int send_empty(self, Type type, uint16_t message_id) except -1
    # retransmission
    cdef bint retransmit(self, Transmission transmission, double now) except -1
    cdef int hold(self, Transmission transmission) except -1
    cdef int send_held(self, double now) except -1
    cdef int end_transmission(self, Transmission transmission) except -1
    cdef int close(self) except -1
    # the limit
    cdef int verify_address(self, double now) except -1

    @cython.final
    cdef inline int64_t send_limit(self, double now) noexcept:
        # Return how many bytes may be sent to this peer now (RFC 9175 section 2.4). Hot path.
        return ANY_SIZE if now < self.verified_until or self.verified_observer else self.amplification_credit
