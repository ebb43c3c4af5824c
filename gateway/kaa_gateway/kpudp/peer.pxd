from libc.stdint cimport uint8_t, uint16_t, uint32_t

from kaa_gateway.kp.session cimport Delivery, Endpoint, Session
from kaa_gateway.kpudp.context cimport KpudpContext
from kaa_gateway.kpudp.outbox cimport Outbox
from kaa_gateway.kpudp.tables cimport DuplicateWindow, Place, Transmission
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.kpudp cimport Frame


cdef enum ExchangeState:
    PUBLISHED
    TAKEN        # NATS has the request
    RESPONDED    # and the response is sent until it is acknowledged


cdef class Exchange:
    # A request of the device; it has a place in the retransmission timer.
    # wiring
    cdef KpudpPeer peer
    # state
    cdef uint16_t message_id
    cdef uint32_t sequence       # what the answer comes back with
    cdef ExchangeState state
    cdef uint16_t response_id    # message ID of the response


cdef class KpudpPeer(Session):
    # wiring
    cdef KpudpContext context
    cdef Outbox outbox
    # state of its address
    cdef Place place
    # state of its epoch
    cdef uint8_t previous_epoch
    cdef double previous_until   # loop time until which datagrams of the previous epoch are dropped
    cdef KpudpPeer current       # the peer of its address, while this one has not proved its newer epoch; or None
    cdef list candidates         # KpudpPeers of newer epochs at its address, the oldest first; None if there is none
    # state of its messages
    cdef list aliases            # paths by alias, or None
    cdef DuplicateWindow window
    cdef dict refused            # message ID -> status, of confirmed data that was not taken; None if there is none
    cdef dict exchanges          # message ID -> Exchange
    cdef uint32_t requests       # so far
    # state of ours
    cdef int pushes              # not acknowledged

    cdef bint is_busy(self) noexcept
    cdef KpudpPeer in_epoch(self, uint8_t epoch)
    cdef int add_candidate(self, KpudpPeer candidate) except -1
    cdef int replace_current(self) except -1
    cdef Place leave_address(self)
    cdef int drop(self, str reason) except -1
    cdef int on_frame(self, const Frame* frame) except -1
    cdef int on_message(self, const Frame* frame) except -1
    cdef bint resolve(self, const Frame* frame, Slice* path) except -1
    cdef int on_duplicate(self, const Frame* frame) except -1
    cdef int publish_data(self, const Frame* frame, Slice path) except -1
    cdef int publish_request(self, const Frame* frame, Slice path) except -1
    cdef int on_ping(self, const Frame* frame) except -1
    cdef int on_pong(self, const Frame* frame) except -1
    cdef int on_acknowledgement(self, const Frame* frame) except -1
    cdef int refuse_data(self, uint16_t message_id, int status) except -1
    cdef int acknowledge_late(self, Exchange exchange) except -1
    cdef int respond(self, Exchange exchange, int status, Slice phrase, Slice payload) except -1
    cdef bint push(self, Delivery* delivery, Endpoint endpoint) except -1
    cdef bint refuse_push(self, const Delivery* delivery, str reason) except -1
    cdef bint is_latest_of(self, Endpoint endpoint) except -1
    cdef int retransmit(self, Transmission transmission) except -1
