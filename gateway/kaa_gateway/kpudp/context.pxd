from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.pending cimport PendingRequests
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.kpudp.tables cimport PeerTable, Place, RetransmissionTimer
from kaa_gateway.net.udp cimport DatagramCore
from kaa_gateway.tick cimport Tick, TickOutput
from kaa_gateway.wire.buffer cimport Buffer


cdef class KpudpContext(TickOutput):
    # What the peers of a server have in common.
    # wiring
    cdef Tick tick
    cdef DatagramCore core
    cdef Uplink uplink
    cdef Sessions sessions
    cdef PendingRequests pending
    cdef Counters counters
    cdef RetransmissionTimer timer
    cdef PeerTable peers
    # state
    cdef double now              # loop time of the last check, seconds
    cdef object taken            # deque: Exchanges whose ACK is due at the next check, unless RESPONSE is sent before
    cdef list unsent             # Outboxes that have output in this tick
    cdef list spare              # Buffers to use again
    cdef Buffer scratch          # a path, while it is written

    cdef Buffer open_output(self, outbox)
    cdef int evict(self, Place place) except -1
