from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kaa_gateway.counters cimport Counters, Protocol
from kaa_gateway.net.admission cimport Admission, Bucket, Source
from kaa_gateway.net.epoll cimport EpollSet
from kaa_gateway.net.transport cimport Transport, ProtocolCore
from kaa_gateway.wire.buffer cimport Buffer

cdef enum:
    RECEIVE_SIZE = 256 * 1024  # bytes read from a connection at once
    OUTPUT_KEEP = 2048         # bytes of output buffer that a connection keeps until the next check


cdef class TcpListener:
    # wiring
    cdef object loop
    cdef object make_core          # called with the Transport of a new connection: its ProtocolCore
    cdef Counters counters
    cdef Protocol protocol
    cdef bytearray receive_storage   # shared by all connections: emptied before a call ends
    cdef object receive_view
    cdef Py_ssize_t output_max       # bytes queued to one connection
    cdef Py_ssize_t connections_max
    cdef Admission admission         # None if there are no such limits
    # state
    cdef EpollSet ready              # None before the start
    cdef list sockets                # that listen
    cdef list connections            # TcpConnection by descriptor, or None
    cdef Py_ssize_t connected        # how many there are
    cdef uint64_t passes             # of the loop in which something was ready
    cdef uint64_t accepted_in        # the pass that accepted last
    cdef bint resting                # nothing is accepted for the moment
    cdef dict half_open              # TcpConnection -> None, the oldest first
    cdef list awake                  # connections with output to write at the end of the tick
    cdef bint flush_scheduled
    cdef object flush_callback

    cdef TcpConnection make_connection(self)
    cdef int accept(self, int listening) except -1
    cdef int handle(self, TcpConnection connection, uint32_t events) except -1
    cdef int rest(self) except -1
    cdef int set_accepting(self, bint accepting) except -1


cdef class TcpConnection(Transport):
    # wiring
    cdef TcpListener listener
    cdef ProtocolCore core
    cdef Source source               # None if sources are not limited
    cdef bytes source_address
    # state
    cdef int fd                      # -1 when closed
    cdef uint32_t interest           # events that are waited for
    cdef Bucket message_bucket
    cdef Bucket byte_bucket
    cdef uint64_t charged            # of what its core has taken
    cdef double closing_since        # loop time at which check first saw it closing, or 0
    cdef Buffer unsent               # what the socket did not take; None until it happens
    cdef uint8_t is_half_open
    cdef uint8_t is_awake
    cdef uint8_t closing
    cdef uint8_t paused_by_core
    cdef uint8_t paused_by_writer
    cdef uint8_t paused_by_rate

    cdef int begin(self, bytes address) except -1
    cdef int received(self, Py_ssize_t size) except -1
    cdef int ended(self) except -1
    cdef int abort(self) except -1
    cdef int read(self) except -1
    cdef int violated(self, error) except -1
    cdef bint admit(self, bytes address) except -1
    cdef int leave(self) except -1
    cdef int charge(self, Py_ssize_t size) except -1
    cdef int flush(self) except -1
    cdef int finish(self) except -1
    cdef int write(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int write_unsent(self) except -1
    cdef int set_interest(self) except -1
    cdef int check_closing(self, double now) except -1
