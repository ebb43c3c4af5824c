cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from kaa_gateway.coap.blocks cimport Body, BodyTable
from kaa_gateway.coap.exchanges cimport (
    CompletedOfPeer, CompletedRequest, DeduplicationTable, Exchange, ExchangeList, ExchangeTable,
)
from kaa_gateway.coap.observations cimport Observation, ObservationTable
from kaa_gateway.coap.options cimport Refusal, Request, Response
from kaa_gateway.coap.retransmission cimport RetransmissionTimer, Transmission
from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.pending cimport PendingRequests
from kaa_gateway.kp.session cimport Endpoint, Session
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.net.addresses cimport Address
from kaa_gateway.net.udp cimport DatagramCore
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport MessageView, Type
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef class CoapContext:
    # What the peers of one server share.
    # wiring
    cdef DatagramCore core
    cdef Uplink uplink
    cdef Sessions sessions
    cdef Counters counters
    cdef object echo                     # EchoValues
    # settings
    cdef double piggyback_delay          # seconds
    cdef Py_ssize_t body_size_max
    cdef Py_ssize_t exchanges_per_peer
    cdef Py_ssize_t outstanding_per_peer
    cdef double requests_per_second      # of a peer; 0 = any
    cdef bint require_echo
    cdef bytes links                     # the body of /.well-known/core
    cdef bytes links_etag
    # tables
    cdef PendingRequests pending
    cdef ExchangeList unacknowledged     # confirmable requests for which nothing was sent, the oldest first
    cdef DeduplicationTable completed
    cdef RetransmissionTimer timer
    cdef BodyTable requests              # being assembled
    cdef BodyTable responses             # whose blocks are still fetched
    cdef ObservationTable observations
    cdef list spare                      # Exchanges to be used again
    # state
    cdef bint draining
    cdef double now                      # loop time of the last datagram or check: exact enough here
    cdef Buffer path                     # of the request that is being handled
    cdef Buffer out                      # the message that is being written


@cython.final
cdef class CoapPeer(Session):
    # wiring
    cdef CoapContext context
    cdef Address address
    # state
    cdef double heard                    # loop time of its last datagram, roughly
    # state: requests
    cdef ExchangeTable exchanges         # open
    cdef CompletedOfPeer completed       # those that are over
    cdef Py_ssize_t pending_count        # open exchanges that were forwarded
    cdef uint32_t generation             # tells requests with the same message ID apart
    cdef double request_credit           # requests that it may send now
    cdef double request_credit_at        # loop time of that number
    # state: our messages
    cdef uint16_t next_message_id
    cdef dict transmissions              # message ID of ours -> Transmission
    cdef dict observations               # CoAP token -> Observation
    cdef uint32_t observe_sequence
    cdef int64_t message_size_max        # bytes of a message that its transport can carry
    cdef int64_t amplification_credit    # bytes that may be sent until its address is verified
    cdef double verified_until           # loop time
    cdef bint verified_observer          # its address stays verified for as long as it observes
    cdef bint holds                      # messages wait until more bytes may be sent

    # requests
    cdef int receive_request(self, const MessageView* view, const Request* request, double now) except -1
    cdef Exchange open_exchange(self, const MessageView* view, double now)
    cdef int receive_block(self, Exchange exchange, const Request* request, Slice payload, double now) except -1
    cdef int repeat_upload(self, Exchange exchange, Body request) except -1
    cdef int forward(self, Exchange exchange, Slice payload, double now) except -1
    # duplicates
    cdef int repeat_acknowledgement(self, Exchange exchange) except -1
    cdef int repeat_response(self, const CompletedRequest* completed) except -1
    cdef int acknowledge_separately(self, Exchange exchange) except -1
    # responses
    cdef Exchange find_exchange(self, uint32_t sequence)
    cdef int respond_with(self, Exchange exchange, const ExtensionDataView* data, Endpoint endpoint) except -1
    cdef int send_next_block(self, Exchange exchange, const Request* request, double now) except -1
    cdef int list_links(self, Exchange exchange, const Request* request) except -1
    cdef int refuse(self, Exchange exchange, Refusal refusal) except -1
    cdef int respond_error(self, Exchange exchange, uint8_t code, bytes diagnostic) except -1
    cdef int respond(self, Exchange exchange, Response* response) except -1
    cdef int stop_waiting(self, Exchange exchange) except -1
    cdef int complete(self, Exchange exchange, Slice datagram) except -1
    # observations
    cdef int64_t observe(self, Exchange exchange, Endpoint endpoint) except -2
    cdef int end_observation(self, Observation observation) except -1
    cdef int notify(self, Observation observation, const ExtensionDataView* data) except -1
    cdef bint send_notification(
        self, Observation observation, uint8_t code, int content_format, Slice body
    ) except -1
    cdef int end_observations(self, uint8_t code) except -1
    cdef int send_queued(self, Observation observation) except -1
    # acknowledgements of our messages
    cdef int receive_acknowledgement(self, uint16_t message_id, double now) except -1
    cdef int receive_reset(self, uint16_t message_id) except -1
    cdef int give_up(self, Transmission transmission) except -1
    cdef int retransmit(self, Transmission transmission, double now) except -1
    cdef int hold(self, Transmission transmission) except -1
    cdef int send_held(self, double now) except -1
    cdef int end_transmission(self, Transmission transmission) except -1
    # sending
    cdef uint16_t new_message_id(self) noexcept
    cdef bint encode(
        self, Type type, uint16_t message_id, Slice token, Response* response, Slice transfer_key, int64_t limit
    ) except -1
    cdef bint fit(self, Type type, uint16_t message_id, Slice token, Response* response, int64_t limit) except -1
    cdef int send_confirmable(self, uint16_t message_id, Observation observation) except -1
    cdef int hold_confirmable(
        self, uint16_t message_id, Slice token, Response* response, Slice transfer_key
    ) except -1
    cdef int send(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int send_empty(self, Type type, uint16_t message_id) except -1
    # limits
    cdef bint may_request(self, double now) noexcept
    cdef int verify_address(self, double now) except -1
    cdef int64_t send_limit(self, double now) noexcept
    cdef bint is_busy(self) noexcept
    cdef int close(self) except -1
