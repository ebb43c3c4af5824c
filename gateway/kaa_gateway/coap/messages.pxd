from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.pending cimport PendingRequests
from kaa_gateway.kp.sessions cimport Session, Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.coap.answered cimport Answered, AnsweredOfPeer, AnsweredRequests
from kaa_gateway.coap.blocks cimport BodyTable
from kaa_gateway.coap.echo cimport EchoValues
from kaa_gateway.coap.exchanges cimport (
    Exchange, ExchangeList, ExchangeTable, RetransmissionTimer, Transmission,
)
from kaa_gateway.coap.observe cimport Observer
from kaa_gateway.net.addresses cimport Address
from kaa_gateway.net.udp cimport DatagramCore
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport MessageView, Type


cdef class CoapShared:
    # What the peers of a worker share.
    # wiring
    cdef DatagramCore core
    cdef Uplink uplink
    cdef Sessions sessions
    cdef PendingRequests pending
    cdef Counters counters
    cdef EchoValues echo
    cdef bytes links                     # the body of /.well-known/core
    # settings
    cdef double piggyback_delay          # seconds
    cdef double ack_timeout              # seconds
    cdef Py_ssize_t body_size_max
    cdef Py_ssize_t exchanges_per_peer
    cdef Py_ssize_t outstanding_per_peer
    cdef Py_ssize_t observers_max
    cdef Py_ssize_t observers_per_peer
    cdef double requests_per_second      # of a peer; 0 = any
    cdef bint require_echo
    # state
    cdef bint draining
    cdef list spare                      # Exchanges to be used again
    cdef ExchangeList waiting            # confirmable requests without any answer yet, the oldest first
    cdef AnsweredRequests answered       # kept for their duplicates
    cdef RetransmissionTimer timer
    cdef BodyTable requests
    cdef BodyTable responses
    cdef Py_ssize_t observer_count
    cdef Py_ssize_t queued_bytes         # of notifications
    cdef uint32_t etag
    cdef Buffer path                     # of the request being handled
    cdef Buffer out                      # the message being written
    cdef double now                      # the loop's time of the last datagram or check: exact enough here


cdef class CoapMessages(Session):
    # wiring
    cdef CoapShared shared
    cdef Address address
    # state
    cdef ExchangeTable exchanges         # not yet answered
    cdef AnsweredOfPeer answered
    cdef Py_ssize_t pending_count        # of them, those that were forwarded and wait
    cdef dict transmissions              # message ID of ours -> Transmission
    cdef uint16_t next_message_id
    cdef uint32_t generation             # tells requests with the same message ID apart
    cdef double heard                    # when it was heard last, roughly
    # state of what may be sent to it
    cdef int64_t allowance               # bytes, until its address is proved
    cdef double proved_until
    cdef double tokens                   # requests that it may send now
    cdef double tokens_at

    cdef int on_acknowledgement(self, uint16_t message_id, double now) except -1
    cdef int on_reset(self, uint16_t message_id) except -1
    cdef int delivered(self, Observer observer) except -1
    cdef int undeliverable(self, Observer observer) except -1

    cdef bint may_request(self, double now) noexcept
    cdef Exchange open_exchange(self, const MessageView* view, double now)
    cdef int on_duplicate(self, Exchange exchange) except -1
    cdef int on_answered_duplicate(self, const Answered* answered) except -1
    cdef int acknowledge_early(self, Exchange exchange) except -1
    cdef int remember(self, Exchange exchange, Slice answer) except -1
    cdef int settle(self, Exchange exchange) except -1

    cdef uint16_t new_message_id(self) noexcept
    cdef int transmit(self, uint16_t message_id, Observer observer) except -1
    cdef int retransmit(self, Transmission transmission, double now) except -1
    cdef int cancel(self, Transmission transmission) except -1
    cdef int prove(self, double now) except -1
    cdef int64_t room(self, double now) noexcept
    cdef int send(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int send_empty(self, Type type, uint16_t message_id) except -1
    cdef int close(self) except -1
