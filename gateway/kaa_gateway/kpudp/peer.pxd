from libc.stdint cimport uint8_t, uint16_t, uint32_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.pending cimport PendingRequests
from kaa_gateway.kp.sessions cimport Delivery, Endpoint, Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.kpudp.outbox cimport Correspondent, Outbox
from kaa_gateway.kpudp.table cimport Entry, Table
from kaa_gateway.kpudp.window cimport DuplicateWindow
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.kpudp cimport Frame


cdef class Shared:
    # What the peers of a worker share.
    # wiring
    cdef Uplink uplink
    cdef Sessions sessions
    cdef PendingRequests pending
    cdef Counters counters
    cdef Outbox outbox
    cdef Table table
    # state
    cdef double now              # loop time of the last check, seconds
    cdef list taken              # Exchanges whose ACK is due at the next check, unless RESPONSE is sent before
    cdef Buffer scratch          # a path, then a frame

    cdef int keep_bound(self, Entry excess) except -1


cdef enum ExchangeState:
    PUBLISHED
    TAKEN        # NATS has the request
    RESPONDED    # and the response is sent until it is acknowledged


cdef class Exchange:
    # A request of the device; it has a place in the outbox.
    cdef KpudpPeer peer
    cdef uint16_t message_id
    cdef uint32_t sequence       # what the answer comes back with
    cdef ExchangeState state
    cdef uint16_t response_id    # message ID of the response


cdef class KpudpPeer(Correspondent):
    # wiring
    cdef Shared shared
    # state
    cdef uint8_t previous_epoch
    cdef double previous_until   # loop time until which datagrams of the previous epoch are dropped
    cdef list aliases            # paths by alias, or None
    cdef DuplicateWindow window
    cdef dict refused            # message ID -> status, of confirmed data that was not taken; None if there is none
    cdef dict exchanges          # message ID -> Exchange
    cdef uint32_t requests       # so far
    cdef int pushes              # not acknowledged yet

    cdef int take(self, const Frame* frame) except -1
    cdef bint resolve(self, const Frame* frame, Slice* path) except -1
    cdef int on_message(self, const Frame* frame) except -1
    cdef int on_duplicate(self, const Frame* frame) except -1
    cdef int publish_data(self, const Frame* frame, Slice path) except -1
    cdef int publish_request(self, const Frame* frame, Slice path) except -1
    cdef int on_ping(self, const Frame* frame) except -1
    cdef int on_pong(self, const Frame* frame) except -1
    cdef int on_concluded(self, const Frame* frame) except -1
    cdef int refuse_data(self, uint16_t message_id, int status) except -1
    cdef int send_late_ack(self, Exchange exchange) except -1
    cdef int respond(self, Exchange exchange, int status, Slice phrase, Slice payload) except -1
    cdef bint push(self, Delivery* delivery, Endpoint endpoint) except -1
    cdef bint is_heard_last(self, Endpoint endpoint) except -1
    cdef int drop(self, str reason) except -1
    cdef int end(self, str reason) except -1
