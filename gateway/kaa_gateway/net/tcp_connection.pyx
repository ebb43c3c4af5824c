"""A TCP connection: its socket, its protocol core, and the output that the socket has not taken yet.

All connections of a listener read into one buffer, and output is written once a tick of the event loop. Whether a
connection has ended is learned by reading and writing it, never from its epoll events: those may belong to an earlier
connection with the same descriptor.

What lives here: reading, writing, back-pressure, rates, the end of a connection. What does not: accepting, time-outs
and the order of connections (tcp_listener.pyx).
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.errno cimport EAGAIN, EINTR, errno

import structlog

from kaa_gateway.errors import ProtocolError

from kaa_gateway.net.admission cimport Admission, source_of
from kaa_gateway.net.epoll cimport EPOLLIN, EPOLLOUT

log = structlog.get_logger("gateway.transports")

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    int shutdown(int fd, int how)
    int setsockopt(int fd, int level, int name, const void* value, socklen_t size)
    struct sockaddr:
        pass
    int getpeername(int fd, sockaddr* address, socklen_t* size)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int SHUT_WR
    int SOL_SOCKET
    int SO_LINGER
    struct linger:
        int l_onoff
        int l_linger

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, int* value)

cdef extern from "<linux/sockios.h>" nogil:
    int SIOCOUTQ

cdef extern from "<unistd.h>" nogil:
    int close_descriptor "close"(int fd)

cdef enum:
    UNSENT_HIGH = 64 * 1024     # unsent bytes above which the peer is not read ...
    UNSENT_LOW = 16 * 1024      # ... until there are no more than this
    READ_WORK = 1024            # bytes that reading once counts for, beside those that were read
    ADDRESS_SIZE_MAX = 128      # bytes of a sockaddr_storage

cdef double CLOSING_TIME = 5.0  # seconds that a peer has to take the last output, and to close its side


cdef class TcpConnection(Transport):
    """One connection over a connected socket, which it owns."""

    cdef int start(self, const uint8_t* address, Py_ssize_t size) except -1:
        """Make the connection's core. `address` is the peer's sockaddr, borrowed for the call."""
        self.core = self.listener.server.connect(self)
        return 0

    # ------------------------------------------------------------ reading

    cdef int read(self) except -1:
        """Read once, into the buffer that all connections share. Hot path."""
        cdef ssize_t size = recv(self.fd, PyByteArray_AS_STRING(self.listener.receive_storage), RECEIVE_SIZE, 0)
        self.listener.work += READ_WORK + size
        if size > 0:
            if self.lingering:
                return 0
            self.on_bytes(size)
            return self.charge(size) if self.listener.admission is not None else 0
        if size == 0:
            return self.on_end_of_stream()
        return self.abort() if errno not in (EAGAIN, EINTR) else 0

    cdef int on_bytes(self, Py_ssize_t size) except -1:
        """Give the bytes that were read to the core. A violation closes the connection. Hot path."""
        try:
            self.core.receive(<const uint8_t*>PyByteArray_AS_STRING(self.listener.receive_storage), size)
        except ProtocolError as error:
            self.on_violation(error)
        return 0

    cdef int on_violation(self, error) except -1:
        """Close the connection of a peer that breaks its protocol, after the output so far."""
        self.listener.counters.count("closed", error.reason)
        log.info("connection closed: protocol error", reason=error.reason, detail=error.detail)
        if self.core is not None:
            self.core.explain(error.reason)
        return self.close()

    cdef int on_end_of_stream(self) except -1:
        """Handle the peer's FIN (RFC 9293 section 3.6): close after the answers that are due."""
        self.input_ended = True
        if self.lingering:
            return self.abort()
        self.set_interest()
        if self.closing or self.core.input_ended:
            return 0
        try:
            self.core.end_of_input()
        except ProtocolError as error:
            self.on_violation(error)
        return 0

    cdef int set_interest(self) except -1:
        """Wait for the epoll events that the connection can handle now."""
        cdef uint32_t interest = 0
        if self.fd < 0:
            return 0
        if self.lingering:
            interest = EPOLLIN
        elif not (
            self.closing or self.input_ended or self.paused_by_core or self.paused_by_writer or self.paused_by_rate
        ):
            interest = EPOLLIN
        if self.unsent is not None and self.unsent.size:
            interest |= EPOLLOUT
        if interest != self.interest:
            self.listener.epoll.change(self.fd, self.interest, interest)
            self.interest = interest
        return 0

    # ------------------------------------------------------------ admission

    cdef bint admit(self, const uint8_t* address, Py_ssize_t size) except -1:
        """Count a new connection from a sockaddr. Return False if its source has as many connections as it may."""
        cdef TcpListener listener = self.listener
        cdef Admission admission = listener.admission
        cdef double now = 0
        if admission.rates or admission.knows_sources or listener.accept_rate > 0:
            now = listener.loop.time()  # without a limit that needs it, the call is spared
        if admission.knows_sources:
            self.source_address = source_of(address, size)
            self.source = admission.open(self.source_address, now)
            if self.source is None:
                listener.counters.count("closed", "too_many_connections_of_source")
                return False
        self.message_bucket = Bucket(max(admission.message_rate, 1.0), now)
        self.byte_bucket = Bucket(admission.byte_rate, now)
        self.rates_begun = admission.rates_begun
        if listener.half_open >= admission.half_open_max:
            listener.close_half_open()
        self.enter_half_open()
        return True

    cdef int enter_half_open(self) except -1:
        """Note that the peer is not admitted yet: it is the last in the chain of such connections."""
        cdef TcpListener listener = self.listener
        self.is_half_open = True
        self.half_open_before = listener.half_open_last
        if listener.half_open_last is None:
            listener.half_open_first = self
        else:
            listener.half_open_last.half_open_after = self
        listener.half_open_last = self
        listener.half_open += 1
        return 0

    cdef int leave_half_open(self) except -1:
        """Note that the peer has been admitted, or is gone."""
        cdef TcpListener listener = self.listener
        cdef TcpConnection before = self.half_open_before, after = self.half_open_after
        self.is_half_open = False
        self.half_open_before = self.half_open_after = None
        if before is None:
            listener.half_open_first = after
        else:
            before.half_open_after = after
        if after is None:
            listener.half_open_last = before
        else:
            after.half_open_before = before
        listener.half_open -= 1
        return 0

    cdef int charge(self, Py_ssize_t size) except -1:
        """Count what was read. A connection beyond its rate is not read until it is within it again. Hot path."""
        cdef Admission admission = self.listener.admission
        cdef ProtocolCore core = self.core
        cdef double wait
        cdef uint64_t count = 0
        if self.is_half_open and core is not None and core.is_admitted():
            self.leave_half_open()
        if not admission.rates:
            return 0
        if core is not None:  # otherwise the bytes belong to a TLS handshake
            if self.rates_begun != admission.rates_begun:
                self.rates_begun = admission.rates_begun
                self.messages_charged = core.packets() - 1
            count = core.packets() - self.messages_charged
            self.messages_charged += count
        wait = admission.charge(
            &self.message_bucket, &self.byte_bucket, self.source, count, size, self.listener.loop.time()
        )
        if wait > 0 and not self.closing and not self.paused_by_rate:
            self.paused_by_rate = True
            self.add_unread_time(wait)
            self.set_interest()
            self.listener.loop.call_later(wait, self.resume_within_rate)
        return 0

    cdef int add_unread_time(self, double seconds) except -1:
        """Leave the time out of time-outs in which the connection is not read."""
        return 0 if self.core is None else self.core.add_unread_time(seconds)

    def resume_within_rate(self):
        """Read again a connection that was beyond its rate."""
        self.paused_by_rate = False
        self.set_interest()

    # ------------------------------------------------------------ Transport

    cdef int wake(self) except -1:
        """Flush at the end of this tick. Hot path."""
        cdef TcpListener listener = self.listener
        if self.flush_pending:
            return 0
        self.flush_pending = True
        if listener.flush_last is None:
            listener.flush_first = self
        else:
            listener.flush_last.next_to_flush = self
        listener.flush_last = self
        return listener.tick.add(listener)

    cdef int pause_reading(self) except -1:
        self.paused_by_core = True
        return self.set_interest()

    cdef int resume_reading(self) except -1:
        self.paused_by_core = False
        return self.set_interest()

    cdef int close(self) except -1:
        self.closing = True
        return self.wake()

    cdef int close_now(self) except -1:
        cdef linger reset = linger(1, 0)
        self.closing = True
        self.flush()
        if self.fd < 0 or (self.lingering and self.queued_bytes() <= UNSENT_HIGH):
            return 0
        # The peer does not read, and would get FIN only behind all that. The kernel drops what it has not taken.
        setsockopt(self.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset))
        return self.abort()

    cdef bytes peer_address(self):
        cdef uint8_t[ADDRESS_SIZE_MAX] address
        cdef socklen_t size = ADDRESS_SIZE_MAX
        if self.address is not None:
            return self.address
        if self.fd < 0 or getpeername(self.fd, <sockaddr*>address, &size) < 0:
            return b""
        return address[:size]

    # ------------------------------------------------------------ writing

    cdef int flush(self) except -1:
        """Write the core's output, with one system call a tick. Hot path."""
        if self.fd < 0 or self.lingering:
            return 0
        self.core.finish_output(self.closing)
        output = self.core.output
        if output.size:
            self.write(output.data, output.size)
            output.clear(OUTPUT_KEEP)
        return self.finish() if self.closing else 0

    cdef int write(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Write bytes to the socket, and keep what it does not take, up to the bound. Hot path."""
        cdef ssize_t written = 0
        if self.fd < 0:
            return 0
        if self.unsent is None or self.unsent.size == 0:
            written = send(self.fd, data, <size_t>size, MSG_DONTWAIT | MSG_NOSIGNAL)
            if written == size:
                return 0
            if written < 0:
                if errno not in (EAGAIN, EINTR):
                    return self.abort()
                written = 0
        if self.unsent is None:
            self.unsent = Buffer()
        if self.unsent.size + size - written > self.listener.output_max:
            self.listener.counters.count("closed", "slow_reader")
            log.info("connection closed: it does not read what it is sent")
            return self.abort()
        self.unsent.append(data + written, size - written)
        if self.unsent.size > UNSENT_HIGH and not self.paused_by_writer:
            self.paused_by_writer = True
            self.progress_time = self.listener.loop.time()
            self.acknowledged = self.written - self.queued_bytes()
        return self.set_interest()

    cdef int write_unsent(self) except -1:
        """Write unsent bytes: the socket takes some again."""
        cdef ssize_t written = send(
            self.fd, self.unsent.data, <size_t>self.unsent.size, MSG_DONTWAIT | MSG_NOSIGNAL
        )
        if written < 0:
            return self.abort() if errno not in (EAGAIN, EINTR) else 0
        self.unsent.consume(written)
        self.written += written
        if self.unsent.size == 0:
            self.unsent = None
        if self.paused_by_writer and (self.unsent is None or self.unsent.size <= UNSENT_LOW):
            self.paused_by_writer = False
            self.add_unread_time(self.listener.loop.time() - self.progress_time)
        return self.finish() if self.closing else self.set_interest()

    cdef int queued_bytes(self) noexcept:
        """Return the bytes in the kernel's buffer that the peer has not acknowledged."""
        cdef int queued = 0
        ioctl(self.fd, SIOCOUTQ, &queued)
        return queued

    cdef int check_progress(self, double now) except -1:
        """Leave the time out of time-outs in which a slow peer takes output. One that takes nothing may be gone.

        EPOLLOUT comes only when a good part of the kernel's buffer is free, which can take minutes.
        """
        cdef int64_t acknowledged = self.written - self.queued_bytes()
        if acknowledged > self.acknowledged:
            self.acknowledged = acknowledged
            self.add_unread_time(now - self.progress_time)
            self.progress_time = now
        return 0

    # ------------------------------------------------------------ the end

    cdef int finish(self) except -1:
        """Send FIN as soon as the socket has taken all output."""
        if self.fd < 0 or self.lingering:
            return 0
        if self.unsent is not None and self.unsent.size:
            return self.set_interest()
        return self.abort() if self.input_ended else self.linger()

    cdef int linger(self) except -1:
        """Send FIN, and discard what the peer still sends until it closes too, for CLOSING_TIME at most.

        Closing the socket over unread bytes would send a reset, which may take back from the peer what it was answered
        (RFC 9293 section 3.10.4, RFC 9112 section 9.6).
        """
        cdef ProtocolCore core = self.core
        if shutdown(self.fd, SHUT_WR) < 0:
            return self.abort()
        self.lingering = True
        self.closing = True
        self.unsent = None
        self.core = None
        if self.is_half_open:
            self.leave_half_open()
        self.set_interest()
        return core.lost() if core is not None else 0

    cdef int abort(self) except -1:
        """Close the connection now, and tell its core. Not to be called from within the core."""
        cdef TcpListener listener = self.listener
        cdef ProtocolCore core = self.core
        if self.fd < 0:
            return 0
        if self.source is not None:
            listener.admission.close(self.source_address, self.source)
            self.source = None
        if self.is_half_open:
            self.leave_half_open()
        listener.connections[self.fd] = None
        listener.connected -= 1
        listener.counters.connections_closed[<int>listener.protocol] += 1
        close_descriptor(self.fd)  # which also takes it out of the epoll set
        self.fd = -1
        self.closing = True
        self.unsent = None
        self.core = None
        return core.lost() if core is not None else 0

    cdef int check_closing(self, double now) except -1:
        """Abort a connection whose peer does not take the last output, or does not close its side, in time."""
        if self.closing_since == 0:
            self.closing_since = now
        elif now - self.closing_since > CLOSING_TIME:
            self.abort()
        return 0
