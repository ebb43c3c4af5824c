from libc.stdint cimport uint8_t, uint32_t

from kaa_gateway.counters cimport Counters, Protocol
from kaa_gateway.net.admission cimport Admission, Bucket
from kaa_gateway.net.epoll cimport EpollSet
from kaa_gateway.net.proxy cimport ProxyProtocol
from kaa_gateway.net.transport cimport ProtocolServer
from kaa_gateway.tick cimport Tick, TickOutput

cdef class TcpListener

from kaa_gateway.net.tcp_connection cimport TcpConnection


cdef class ListeningSocket:
    cdef TcpListener listener
    cdef object socket
    cdef int fd


cdef class TcpListener(TickOutput):
    # wiring
    cdef object loop
    cdef Tick tick
    cdef ProtocolServer server       # makes the core of a new connection
    cdef Counters counters
    cdef Admission admission         # None if nothing is limited
    cdef ProxyProtocol proxy         # None if no proxy is trusted to name its clients
    # settings
    cdef Protocol protocol
    cdef Py_ssize_t output_max       # bytes queued to one connection
    cdef Py_ssize_t connections_max
    cdef double accept_rate          # connections a second that are accepted; 0 is any
    # state
    cdef bytearray receive_storage   # shared by all connections: emptied before a call ends
    cdef object receive_view
    cdef EpollSet epoll              # None before the start
    cdef list sockets                # ListeningSocket; the event loop watches them unless accepting is paused
    cdef list connections            # TcpConnection by descriptor, or None
    cdef Py_ssize_t connected        # open connections
    cdef Py_ssize_t work             # of this pass, in bytes
    cdef Py_ssize_t checked          # places in `connections` that this round of `check` has looked at
    cdef int accepted_alone          # passes that accepted one connection and did not ask for more, since one asked
    cdef bint accepting_paused       # for want of descriptors or memory, or for the rate
    cdef Bucket accept_bucket
    cdef Py_ssize_t redirected_to         # the place in `connections` at which `redirect` goes on
    cdef object headers              # OrderedDict of ProxyConnection -> loop time by which its header must be there
    cdef Py_ssize_t half_open        # connections whose peer is not admitted yet, in a chain (TcpConnection)
    cdef TcpConnection half_open_first    # the oldest of them, or None
    cdef TcpConnection half_open_last
    # Connections with output to write at the end of the tick, in a chain (TcpConnection); None if there are none.
    cdef TcpConnection flush_first
    cdef TcpConnection flush_last

    cdef int serve(self, int fd, const uint8_t* address, Py_ssize_t size) except -1
    cdef TcpConnection make_connection(self)
    cdef int on_connections(self, int listening) except -1
    cdef int handle(self, TcpConnection connection, uint32_t events) except -1
    cdef int accept(self, int listening) except -1
    cdef int add_header(self, TcpConnection connection) except -1
    cdef int remove_header(self, TcpConnection connection) except -1
    cdef int close_without_header(self, double now) except -1
    cdef int pause_accepting(self, double seconds) except -1
    cdef bint may_accept(self) except -1
    cdef double take_turn(self) except -1
    cdef TcpConnection oldest_half_open(self)
    cdef int set_accepting(self, bint accepting) except -1
