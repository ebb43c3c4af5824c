"""Plain TCP: the adapter between sockets and transport cores.

The sockets of a listener are in one epoll set, which the event loop watches as a whole: a loop's transports would cost
an object each, and calls of Python for all that is read. All connections read into one buffer, and output is written
once a tick.

Whether a connection has ended is said by reading and writing it, never by its events: those may be of an earlier
connection with the same descriptor.
"""

import asyncio
from itertools import islice

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno

import structlog

from kaa_gateway.errors import ProtocolError
from kaa_gateway.net.listening import listen

from kaa_gateway.net.admission cimport source_of
from kaa_gateway.net.epoll cimport EPOLLIN, EPOLLOUT, epoll_event

log = structlog.get_logger("gateway.transports")

cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr:
        pass
    ctypedef unsigned int socklen_t
    int accept4(int fd, sockaddr* address, socklen_t* size, int flags)
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int SOCK_CLOEXEC
    int SOCK_NONBLOCK

cdef extern from "<unistd.h>" nogil:
    int close_descriptor "close"(int fd)

cdef enum:
    EVENTS_AT_ONCE = 512        # of a pass of the loop; others come in the next
    ACCEPTED_AT_ONCE = 64       # connections, of a pass of the loop
    ADDRESS_SIZE_MAX = 128      # bytes of a sockaddr_storage
    HALF_OPEN_SCAN = 64         # of those taken for half-open, looked at for one that is
    UNSENT_HIGH = 64 * 1024     # bytes that wait for the socket, above which the peer is not read ...
    UNSENT_LOW = 16 * 1024      # ... until there are no more than this

cdef double CLOSING_TIME = 5.0  # seconds that a connection has to take its last output
cdef double REST = 0.5          # seconds without accepting, when descriptors or memory are used up

cdef dict PROTOCOLS = {"mqtt": Protocol.MQTT, "http": Protocol.HTTP}


cdef class TcpConnection(Transport):
    """One connection: its socket, its core, and what the socket has not taken yet."""

    cdef int begin(self, bytes address) except -1:
        """Start a core for the connection; `address` is the peer's sockaddr."""
        self.core = self.listener.make_core(self)
        return 0

    # ------------------------------------------------------------ reading

    cdef int read(self) except -1:
        """Read once, into the buffer that all connections share. Hot path."""
        cdef ssize_t size = recv(self.fd, PyByteArray_AS_STRING(self.listener.receive_storage), RECEIVE_SIZE, 0)
        if size > 0:
            self.received(size)
            return self.charge(size) if self.listener.admission is not None else 0
        if size == 0:
            return self.ended()
        return self.abort() if errno not in (EAGAIN, EINTR) else 0

    cdef int received(self, Py_ssize_t size) except -1:
        """Hand on what was read. Hot path. A violation ends this connection, after what was already answered."""
        try:
            self.core.receive(<const uint8_t*>PyByteArray_AS_STRING(self.listener.receive_storage), size)
        except ProtocolError as error:
            self.violated(error)
        return 0

    cdef int violated(self, error) except -1:
        """The peer has broken its protocol."""
        self.listener.counters.count("closed", error.reason)
        log.info("connection closed: protocol error", reason=error.reason, detail=error.detail)
        return self.close()

    cdef int ended(self) except -1:
        """The peer has ended; so do we, after what this tick has left."""
        self.flush()
        self.closing = True
        return self.finish()

    cdef int set_interest(self) except -1:
        """Wait for what the connection can take now."""
        cdef uint32_t interest = 0
        if self.fd < 0:
            return 0
        if not (self.closing or self.paused_by_core or self.paused_by_writer or self.paused_by_rate):
            interest = EPOLLIN
        if self.unsent is not None and self.unsent.size:
            interest |= EPOLLOUT
        if interest != self.interest:
            self.listener.ready.change(self.fd, self.interest, interest)
            self.interest = interest
        return 0

    # ------------------------------------------------------------ admission

    cdef bint admit(self, bytes address) except -1:
        """Whether the connection may be: its source has fewer than it may, and there is room among the half-open."""
        cdef TcpListener listener = self.listener
        cdef Admission admission = listener.admission
        cdef double now = listener.loop.time()
        if admission.knows_sources:
            self.source_address = source_of(address, len(address))
            self.source = admission.open(self.source_address, now)
            if self.source is None:
                listener.counters.count("closed", "too_many_connections_of_source")
                return False
        self.message_bucket = Bucket(max(admission.message_rate, 1.0), now)
        self.byte_bucket = Bucket(admission.byte_rate, now)
        if len(listener.half_open) >= admission.half_open_max:
            listener.end_half_open()
        self.is_half_open = True
        listener.half_open[self] = None
        return True

    cdef int leave(self) except -1:
        """The connection counts no more."""
        if self.source is not None:
            self.listener.admission.close(self.source_address, self.source)
            self.source = None
        if self.is_half_open:
            self.is_half_open = False
            del self.listener.half_open[self]
        return 0

    cdef int charge(self, Py_ssize_t size) except -1:
        """Count what was read; a connection beyond its rate is not read until it is within it again. Hot path."""
        cdef Admission admission = self.listener.admission
        cdef ProtocolCore core = self.core
        cdef double wait
        cdef uint64_t count = 0
        if self.is_half_open and core is not None and core.is_admitted():
            self.is_half_open = False
            del self.listener.half_open[self]
        if not admission.rates:
            return 0
        if core is not None:  # else these are bytes of a TLS handshake
            count = core.packets() - self.charged
            self.charged += count
        wait = admission.charge(
            &self.message_bucket, &self.byte_bucket, self.source, count, size, self.listener.loop.time()
        )
        if wait > 0 and not self.closing and not self.paused_by_rate:
            self.paused_by_rate = True
            if core is not None:
                core.hold(True)
            self.set_interest()
            self.listener.loop.call_later(wait, self.within_rate)
        return 0

    def within_rate(self):
        """What was sent too much has been waited for."""
        self.paused_by_rate = False
        if self.core is not None:
            self.core.hold(False)
        self.set_interest()

    # ------------------------------------------------------------ Transport

    cdef int wake(self) except -1:
        cdef TcpListener listener = self.listener
        if self.is_awake:
            return 0
        self.is_awake = True
        listener.awake.append(self)
        if not listener.flush_scheduled:
            listener.flush_scheduled = True
            listener.loop.call_soon(listener.flush_callback)
        return 0

    cdef int pause_reading(self) except -1:
        self.paused_by_core = True
        return self.set_interest()

    cdef int resume_reading(self) except -1:
        self.paused_by_core = False
        return self.set_interest()

    cdef int close(self) except -1:
        self.closing = True
        return self.wake()

    # ------------------------------------------------------------ writing

    cdef int flush(self) except -1:
        """Write the core's output: a system call a tick, not a message."""
        self.is_awake = False
        if self.fd < 0:
            return 0
        self.core.finish_output(self.closing)
        output = self.core.output
        if output.size:
            self.write(output.data, output.size)
            output.clear(OUTPUT_KEEP)
        return self.finish() if self.closing else 0

    cdef int write(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Write bytes to the socket, and keep what it does not take, within the bound. Hot path."""
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
        if self.unsent.size > UNSENT_HIGH:
            self.paused_by_writer = True
        return self.set_interest()

    cdef int write_unsent(self) except -1:
        """The socket takes bytes again."""
        cdef ssize_t written = send(
            self.fd, self.unsent.data, <size_t>self.unsent.size, MSG_DONTWAIT | MSG_NOSIGNAL
        )
        if written < 0:
            return self.abort() if errno not in (EAGAIN, EINTR) else 0
        self.unsent.consume(written)
        if self.unsent.size == 0:
            self.unsent = None
        if self.unsent is None or self.unsent.size <= UNSENT_LOW:
            self.paused_by_writer = False
        return self.finish() if self.closing else self.set_interest()

    # ------------------------------------------------------------ the end

    cdef int finish(self) except -1:
        """End the connection as soon as the socket has taken everything."""
        if self.fd >= 0 and (self.unsent is None or self.unsent.size == 0):
            return self.abort()
        return self.set_interest()

    cdef int abort(self) except -1:
        """End the connection now, and tell its core, which may not be at work."""
        cdef TcpListener listener = self.listener
        cdef ProtocolCore core = self.core
        if self.fd < 0:
            return 0
        self.leave()
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
        """A peer that does not take its last bytes in time is cut off: it may be dead."""
        if self.closing_since == 0:
            self.closing_since = now
        elif now - self.closing_since > CLOSING_TIME:
            self.abort()
        return 0


cdef class TcpListener:
    """A listening port and its connections. `protocol` names the counters; sizes are in bytes."""

    def __init__(
        self, loop, make_core, Counters counters, str protocol, Py_ssize_t output_max, Py_ssize_t connections_max
    ):
        self.loop = loop
        self.make_core = make_core
        self.counters = counters
        self.protocol = PROTOCOLS[protocol]
        self.output_max = output_max
        self.connections_max = connections_max
        self.receive_storage = bytearray(RECEIVE_SIZE)
        self.receive_view = memoryview(self.receive_storage)
        self.sockets = []
        self.connections = []
        self.half_open = {}
        self.awake = []
        self.flush_callback = self.run_flush

    def limit(self, Admission admission not None):
        """Hold connections to the limits that are common to a worker's listeners; once, before the start."""
        self.admission = admission

    def start(self, host, port, *, reuse_port):
        """Listen; OSError if the port is taken."""
        self.sockets = listen(host, port, reuse_port=reuse_port)
        self.ready = EpollSet(self.loop, self.on_ready)
        self.set_accepting(True)

    @property
    def port(self):
        """The port it listens on, which the system chose if 0 was asked for."""
        return self.sockets[0].getsockname()[1]

    def set_limits(self, Py_ssize_t output_max, Py_ssize_t connections_max):
        """Other bounds, for what comes from now on."""
        self.output_max = output_max
        self.connections_max = connections_max

    def connection_count(self):
        """Open connections."""
        return self.connected

    # ------------------------------------------------------------ what is ready

    def on_ready(self):
        """Some sockets are ready: accept, read and write, then write what cores have left by that. Hot path."""
        cdef epoll_event[EVENTS_AT_ONCE] events
        cdef TcpConnection connection
        cdef int i, fd, count = self.ready.wait(events, EVENTS_AT_ONCE)
        cdef bint flush_here = not self.flush_scheduled
        self.flush_scheduled = True
        self.passes += 1
        try:
            for i in range(count):
                fd = events[i].data.fd
                connection = self.connections[fd] if fd < len(self.connections) else None
                if connection is not None:
                    self.handle(connection, events[i].events)
                else:
                    self.accept(fd)
        finally:
            if flush_here:
                self.run_flush()

    cdef int handle(self, TcpConnection connection, uint32_t events) except -1:
        """Read and write one connection. A fault of ours ends this one, and not others. Hot path."""
        try:
            if connection.interest & EPOLLOUT:
                connection.write_unsent()
            if connection.fd >= 0 and connection.interest & EPOLLIN and events != EPOLLOUT and not connection.closing:
                connection.read()
        except Exception as error:
            self.failed(connection, error)
        return 0

    def failed(self, TcpConnection connection, error):
        """Something went wrong that is no violation."""
        self.loop.call_exception_handler({"message": "a connection ended by a fault", "exception": error})
        connection.abort()

    def run_flush(self):
        """The end of a tick: write what cores have left."""
        cdef TcpConnection connection
        self.flush_scheduled = False
        awake = self.awake
        self.awake = []
        for connection in awake:
            try:
                connection.flush()
            except Exception as error:
                self.failed(connection, error)

    # ------------------------------------------------------------ new connections

    cdef int accept(self, int listening) except -1:
        cdef uint8_t[ADDRESS_SIZE_MAX] address
        cdef socklen_t size
        cdef int fd, count = 1
        if listening not in [sock.fileno() for sock in self.sockets]:
            return 0  # an event of a connection that an earlier one of this pass has closed
        if self.passes - self.accepted_in == 1:
            # There was more than one; else asking for another would be a system call for nothing.
            count = ACCEPTED_AT_ONCE
        self.accepted_in = self.passes
        for _ in range(count):
            size = ADDRESS_SIZE_MAX
            fd = accept4(listening, <sockaddr*>address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                    return self.rest()
                if errno in (ECONNABORTED, EINTR):
                    continue
                return 0
            self.serve(fd, address[:size])
        return 0

    def serve(self, int fd, bytes address not None):
        """Begin a connection over a connected socket, which is its own from now on; `address` is a sockaddr."""
        cdef TcpConnection connection
        if self.connected >= self.connections_max:
            self.counters.count("closed", "too_many_connections")
            close_descriptor(fd)
            return
        connection = self.make_connection()
        connection.listener = self
        connection.fd = -1
        if self.admission is not None and not connection.admit(address):
            close_descriptor(fd)
            return
        while fd >= len(self.connections):
            self.connections.append(None)
        self.connections[fd] = connection
        self.connected += 1
        self.counters.connections_opened[<int>self.protocol] += 1
        connection.fd = fd
        try:
            connection.begin(address)
            connection.set_interest()
        except Exception as error:
            self.failed(connection, error)

    cdef TcpConnection make_connection(self):
        return TcpConnection()

    cdef int rest(self) except -1:
        """No more descriptors or memory: new connections wait in the kernel for a while."""
        self.counters.count("paused", "no_descriptors")
        log.warning("accepting pauses: no more descriptors, or memory", connections=self.connected)
        self.resting = True
        self.set_accepting(False)
        self.loop.call_later(REST, self.go_on)
        return 0

    def go_on(self):
        """Accept again."""
        if self.resting:
            self.resting = False
            self.set_accepting(True)

    cdef int set_accepting(self, bint accepting) except -1:
        cdef uint32_t wanted = EPOLLIN if accepting else 0
        for listening in self.sockets:
            self.ready.change(listening.fileno(), EPOLLIN - wanted, wanted)
        return 0

    def end_half_open(self):
        """Make room for a new connection: the one goes that has been half-open for longest."""
        cdef TcpConnection connection
        for connection in list(islice(self.half_open, HALF_OPEN_SCAN)):
            if connection.core is None or not connection.core.is_admitted():
                self.counters.count("closed", "half_open_connections")
                connection.abort()
                return
            # It was admitted without having been read since.
            connection.is_half_open = False
            del self.half_open[connection]

    def half_open_count(self):
        """Connections that have not said yet who they are, and some that lately have."""
        return len(self.half_open)

    # ------------------------------------------------------------ time and the end

    def check(self):
        """Call about once a second: lets cores act on time that has passed, and takes back what is idle."""
        cdef TcpConnection connection
        cdef double now = self.loop.time()
        for connection in list(self.connections):
            if connection is None:
                continue
            if connection.closing:
                connection.check_closing(now)
            elif connection.core is not None:
                if connection.is_half_open and connection.core.is_admitted():
                    connection.is_half_open = False
                    del self.half_open[connection]
                if connection.core.output.size == 0:
                    connection.core.output.clear(0)
                try:
                    connection.core.check(now)
                except ProtocolError as error:
                    self.counters.count("closed", error.reason)
                    connection.close()

    def stop_accepting(self):
        """Take no new connections."""
        self.resting = False
        for listening in self.sockets:
            listening.close()
        self.sockets = []

    async def stop(self, timeout):
        """Close every connection after its output, for at most `timeout` seconds; then abort what is left."""
        cdef TcpConnection connection
        self.stop_accepting()
        for connection in self.connections:
            if connection is not None:
                connection.close()
        deadline = self.loop.time() + timeout
        while self.connected and self.loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            if connection is not None:
                connection.abort()
        if self.ready is not None:
            self.ready.close()
