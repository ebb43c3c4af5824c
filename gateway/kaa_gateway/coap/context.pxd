from kaa_gateway.coap.blocks cimport BodyTable
from kaa_gateway.coap.exchanges cimport DeduplicationTable, ExchangeList
from kaa_gateway.coap.observations cimport ObservationTable
from kaa_gateway.coap.retransmission cimport RetransmissionTimer
from kaa_gateway.coap.waiting_table cimport WaitingTable
from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.pending cimport PendingRequests
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.net.udp cimport DatagramCore
from kaa_gateway.wire.buffer cimport Buffer


cdef class CoapContext:
    # What the peers of one server share.
    # wiring
    cdef DatagramCore core               # None for reliable transports
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
    cdef object links                    # Links of /.well-known/core
    cdef dict served                     # application version -> its extension instances
    # tables
    cdef PendingRequests pending
    cdef ExchangeList unacknowledged     # confirmable requests for which nothing was sent, the oldest first
    cdef DeduplicationTable completed
    cdef RetransmissionTimer timer
    cdef BodyTable requests              # being assembled
    cdef BodyTable responses             # whose blocks are still fetched
    cdef ObservationTable observations
    cdef WaitingTable waiting            # requests that wait for a push
    cdef list spare                      # Exchanges to be used again
    # state
    cdef bint draining
    cdef double now                      # loop time of the last datagram or check: exact enough here
    cdef Buffer path                     # of the request that is being handled
    cdef Buffer out                      # the message that is being written

    cdef int set_links(self, app_versions) except -1
    cdef int expire_bodies(self, double now) except -1
    cdef dict table_sizes(self)
