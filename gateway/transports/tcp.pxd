from libc.stdint cimport uint8_t, uint64_t

from gateway.kp.counters cimport Counters, Protocol
from gateway.transports.admission cimport Admission, Bucket, Source
from gateway.transports.stream cimport Outlet, Stream

cdef enum:
    RECEIVE_SIZE = 256 * 1024  # bytes read from a connection at once
    OUTPUT_KEEP = 512          # bytes of output buffer that a connection keeps while it has nothing to write


cdef class TcpListener:
    # wiring
    cdef object loop
    cdef object make_stream          # called with the Outlet of a new connection: its Stream
    cdef Counters counters
    cdef Protocol protocol
    cdef bytearray receive_storage   # shared by all connections: emptied before a callback ends
    cdef object receive_view
    cdef Py_ssize_t output_max       # bytes queued to one connection
    cdef Py_ssize_t connections_max
    cdef Admission admission         # None if there are no such limits
    # state
    cdef object server
    cdef set connections
    cdef dict half_open              # TcpConnection -> None, the oldest first
    cdef list awake                  # connections with output to write at the end of the tick
    cdef bint flush_scheduled
    cdef object flush_callback


cdef class TcpConnection(Outlet):
    # wiring
    cdef TcpListener listener
    cdef object transport
    cdef Stream stream
    cdef int fd
    cdef Source source               # None if sources are not limited
    cdef bytes source_address
    # state
    cdef Bucket message_bucket
    cdef Bucket byte_bucket
    cdef uint64_t charged            # of what its core has taken
    cdef bint is_half_open
    cdef bint is_awake
    cdef bint spilled                # the transport holds bytes that the socket did not take
    cdef bint closing
    cdef double closing_since        # loop time at which check first saw it closing, or 0
    cdef bint paused_by_core
    cdef bint paused_by_writer
    cdef bint paused_by_rate

    cdef bint take(self, transport) except -1
    cdef int violated(self, error) except -1
    cdef bint admit(self, transport) except -1
    cdef int leave(self) except -1
    cdef int charge(self, Py_ssize_t size) except -1
    cdef int flush(self) except -1
    cdef int write(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int set_reading(self) except -1
    cdef int check_closing(self, double now) except -1
