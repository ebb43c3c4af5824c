from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kaa_gateway.net.admission cimport Bucket, Source
from kaa_gateway.net.transport cimport ProtocolCore, Transport
from kaa_gateway.wire.buffer cimport Buffer

cdef class TcpConnection(Transport)

from kaa_gateway.net.tcp_listener cimport TcpListener

cdef enum:
    RECEIVE_SIZE = 256 * 1024  # bytes read from a connection at once
    OUTPUT_KEEP = 2048         # bytes of output buffer that a connection keeps until the next check


cdef class TcpConnection(Transport):
    # wiring
    cdef TcpListener listener
    cdef ProtocolCore core           # None before its start and after the end
    cdef Source source               # None if sources are not limited
    cdef bytes source_address
    cdef bytes address               # the client's sockaddr, as a proxy has told it, or kept for the log; else None
    # state
    cdef int fd                      # -1 when closed
    cdef uint32_t interest           # epoll events that are waited for
    cdef Bucket message_bucket
    cdef Bucket byte_bucket
    cdef uint32_t rates_begun               # the admission's count when it was charged last
    cdef uint64_t messages_charged   # of those that the core has received
    cdef double closing_since        # loop time at which check first saw it closing, or 0
    cdef Buffer unsent               # what the socket did not take; None until it happens
    cdef int64_t written             # bytes of `unsent` that the socket took
    cdef int64_t acknowledged        # `written` without what waits in the kernel, when last looked at
    cdef double progress_time        # loop time at which the peer last acknowledged some, while paused_by_writer
    cdef TcpConnection half_open_before   # while it is half-open: the one that has been so for longer, or None
    cdef TcpConnection half_open_after
    cdef TcpConnection next_to_flush      # while `flush_pending`: the one that is flushed after it, or None
    cdef uint8_t is_half_open
    cdef uint8_t flush_pending       # it is in the listener's chain of those to flush
    cdef uint8_t closing             # after the output is written; nothing more is handled
    cdef uint8_t input_ended         # the peer has closed its sending side
    cdef uint8_t lingering           # all output and FIN are sent; what still comes is discarded
    cdef uint8_t paused_by_core
    cdef uint8_t paused_by_writer
    cdef uint8_t paused_by_rate
    cdef uint8_t redirected               # its client was sent to another server

    cdef int start(self, const uint8_t* address, Py_ssize_t size) except -1
    cdef int read(self) except -1
    cdef int on_bytes(self, Py_ssize_t size) except -1
    cdef int on_violation(self, error) except -1
    cdef int on_end_of_stream(self) except -1
    cdef int set_interest(self) except -1
    cdef bint admit(self, const uint8_t* address, Py_ssize_t size) except -1
    cdef int enter_half_open(self) except -1
    cdef int leave_half_open(self) except -1
    cdef int charge(self, Py_ssize_t size) except -1
    cdef int add_unread_time(self, double seconds) except -1
    cdef int queued_bytes(self) noexcept
    cdef int check_progress(self, double now) except -1
    cdef int flush(self) except -1
    cdef int write(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int write_unsent(self) except -1
    cdef int finish(self) except -1
    cdef int linger(self) except -1
    cdef int abort(self) except -1
    cdef int check_closing(self, double now) except -1
