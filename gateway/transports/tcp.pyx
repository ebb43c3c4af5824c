"""Plain TCP: the adapter between a uvloop transport and a transport core.

All connections of a listener read into one buffer, and output is written once a tick: straight to the socket, and
through the transport only what the socket did not take.
"""

import asyncio
import socket
from itertools import islice

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.errno cimport EAGAIN, EINTR, errno

import structlog

from gateway.errors import ProtocolError

from gateway.transports.admission cimport source_of_text

log = structlog.get_logger("gateway.transports")

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void* data, size_t size, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef enum:
    BACKLOG = 4096             # connections that the kernel holds until they are accepted
    HALF_OPEN_SCAN = 64        # of those taken for half-open, looked at for one that is
    PROBE_AFTER = 300          # seconds of silence until the kernel asks whether the peer is there
    PROBE_PERIOD = 30          # seconds between such questions
    PROBES = 5                 # of them without an answer until the connection is gone

cdef double CLOSING_TIME = 5.0  # seconds that a connection has to take its last output

cdef dict PROTOCOLS = {"mqtt": Protocol.MQTT, "http": Protocol.HTTP}


cdef class TcpConnection(Outlet):
    """One connection, as an asyncio.BufferedProtocol."""

    def __init__(self, TcpListener listener):
        self.listener = listener
        self.fd = -1

    def connection_made(self, transport):
        """Start a core for the connection, unless there are too many."""
        if self.take(transport):
            self.stream = self.listener.make_stream(self)

    cdef bint take(self, transport) except -1:
        """Count the connection among the listener's; False, and it is ended, if there are too many."""
        cdef TcpListener listener = self.listener
        if len(listener.connections) >= listener.connections_max:
            listener.counters.count("closed", "too_many_connections")
            transport.abort()
            return False
        if listener.admission is not None and not self.admit(transport):
            transport.abort()
            return False
        self.transport = transport
        self.fd = transport.get_extra_info("socket").fileno()
        listener.connections.add(self)
        listener.counters.connections_opened[<int>listener.protocol] += 1
        return True

    def get_buffer(self, Py_ssize_t size_hint):
        """The buffer that all connections share."""
        return self.listener.receive_view

    def buffer_updated(self, Py_ssize_t size):
        """Hot path. A violation ends this connection, after what was already answered."""
        if self.closing or self.stream is None:
            return
        try:
            self.stream.receive(<const uint8_t*>PyByteArray_AS_STRING(self.listener.receive_storage), size)
        except ProtocolError as error:
            self.violated(error)
        if self.listener.admission is not None:
            self.charge(size)

    cdef int violated(self, error) except -1:
        """The peer has broken its protocol."""
        self.listener.counters.count("closed", error.reason)
        log.info("connection closed: protocol error", reason=error.reason, detail=error.detail)
        return self.close()

    def eof_received(self):
        """The peer has ended; so do we."""
        return False

    def connection_lost(self, error):
        """The connection is gone."""
        self.leave()
        if self.transport is not None:
            self.listener.connections.discard(self)
            self.listener.counters.connections_closed[<int>self.listener.protocol] += 1
        self.transport = None
        self.fd = -1
        self.closing = True
        if self.stream is not None:
            stream = self.stream
            self.stream = None
            (<Stream>stream).lost()

    def pause_writing(self):
        """The peer reads slowly: take no more from it either."""
        self.paused_by_writer = True
        self.set_reading()

    def resume_writing(self):
        """The transport's buffer has drained."""
        self.paused_by_writer = False
        self.set_reading()

    cdef int set_reading(self) except -1:
        if self.transport is None or self.transport.is_closing():
            return 0
        if self.paused_by_core or self.paused_by_writer or self.paused_by_rate:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
        return 0

    # ------------------------------------------------------------ admission

    cdef bint admit(self, transport) except -1:
        """Whether the connection may be: its source has fewer than it may, and there is room among the half-open."""
        cdef TcpListener listener = self.listener
        cdef Admission admission = listener.admission
        cdef double now = listener.loop.time()
        if admission.knows_sources:
            peer = transport.get_extra_info("peername")
            if not peer:
                return False  # it has gone already
            self.source_address = source_of_text(peer[0])
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
        cdef Stream stream = self.stream
        cdef double wait
        cdef uint64_t count = 0
        if self.is_half_open and stream is not None and stream.is_admitted():
            self.is_half_open = False
            del self.listener.half_open[self]
        if not admission.rates:
            return 0
        if stream is not None:  # else these are bytes of a TLS handshake
            count = stream.packets() - self.charged
            self.charged += count
        wait = admission.charge(
            &self.message_bucket, &self.byte_bucket, self.source, count, size, self.listener.loop.time()
        )
        if wait > 0 and not self.closing and not self.paused_by_rate:
            self.paused_by_rate = True
            if stream is not None:
                stream.hold(True)
            self.set_reading()
            self.listener.loop.call_later(wait, self.within_rate)
        return 0

    def within_rate(self):
        """What was sent too much has been waited for."""
        self.paused_by_rate = False
        if self.stream is not None:
            self.stream.hold(False)
        self.set_reading()

    # ------------------------------------------------------------ Outlet

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
        return self.set_reading()

    cdef int resume_reading(self) except -1:
        self.paused_by_core = False
        return self.set_reading()

    cdef int close(self) except -1:
        self.closing = True
        return self.wake()

    cdef int check_closing(self, double now) except -1:
        """A peer that does not take its last bytes in time is cut off: it may be dead."""
        if self.closing_since == 0:
            self.closing_since = now
        elif now - self.closing_since > CLOSING_TIME and self.transport is not None:
            self.transport.abort()
        return 0

    cdef int flush(self) except -1:
        """Write the core's output: a system call a tick, not a message."""
        self.is_awake = False
        if self.transport is None or self.stream is None:
            return 0
        self.stream.finish_output(self.closing)
        output = self.stream.output
        if output.size:
            self.write(output.data, output.size)
            output.clear(OUTPUT_KEEP)
        if self.closing:
            self.transport.close()
        return 0

    cdef int write(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Write bytes to the socket, and what it does not take to the transport, within the bound. Hot path."""
        cdef ssize_t written = 0
        if self.spilled and self.transport.get_write_buffer_size() == 0:
            self.spilled = False
        if not self.spilled:
            written = send(self.fd, data, <size_t>size, MSG_DONTWAIT | MSG_NOSIGNAL)
            if written < 0:
                if errno not in (EAGAIN, EINTR):
                    self.transport.abort()
                    return 0
                written = 0
        if written < size:
            self.spilled = True
            self.transport.write(data[written:size])
            if self.transport.get_write_buffer_size() > self.listener.output_max:
                self.listener.counters.count("closed", "slow_reader")
                log.info("connection closed: it does not read what it is sent")
                self.transport.abort()
        return 0


cdef class TcpListener:
    """A listening port and its connections. `protocol` names the counters; sizes are in bytes."""

    def __init__(
        self, loop, make_stream, Counters counters, str protocol, Py_ssize_t output_max, Py_ssize_t connections_max
    ):
        self.loop = loop
        self.make_stream = make_stream
        self.counters = counters
        self.protocol = PROTOCOLS[protocol]
        self.output_max = output_max
        self.connections_max = connections_max
        self.receive_storage = bytearray(RECEIVE_SIZE)
        self.receive_view = memoryview(self.receive_storage)
        self.connections = set()
        self.half_open = {}
        self.awake = []
        self.flush_callback = self.run_flush

    def limit(self, Admission admission not None):
        """Hold connections to the limits that are common to a worker's listeners; once, before the start."""
        self.admission = admission

    def end_half_open(self):
        """Make room for a new connection: the one goes that has been half-open for longest."""
        cdef TcpConnection connection
        for connection in list(islice(self.half_open, HALF_OPEN_SCAN)):
            if connection.stream is None or not connection.stream.is_admitted():
                self.counters.count("closed", "half_open_connections")
                connection.leave()
                connection.transport.abort()
                return
            # It was admitted without having been read since.
            connection.is_half_open = False
            del self.half_open[connection]

    def half_open_count(self):
        """Connections that have not said yet who they are, and some that lately have."""
        return len(self.half_open)

    async def start(self, host, port, *, reuse_port):
        """Listen; OSError if the port is taken."""
        self.server = await self.loop.create_server(
            self.make_connection, host, port, reuse_port=reuse_port, backlog=BACKLOG
        )
        # Connections inherit them: a device that has lost its power, and asked for no keep-alive, is noticed.
        for listening in self.server.sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_PERIOD)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)

    def make_connection(self):
        """The protocol of a new connection."""
        return TcpConnection(self)

    @property
    def port(self):
        """The port it listens on, which the system chose if 0 was asked for."""
        return self.server.sockets[0].getsockname()[1]

    def set_limits(self, Py_ssize_t output_max, Py_ssize_t connections_max):
        """Other bounds, for what comes from now on."""
        self.output_max = output_max
        self.connections_max = connections_max

    def connection_count(self):
        """Open connections."""
        return len(self.connections)

    def run_flush(self):
        """The end of a tick: write what cores have left."""
        cdef TcpConnection connection
        self.flush_scheduled = False
        awake = self.awake
        self.awake = []
        for connection in awake:
            connection.flush()

    def check(self):
        """Call about once a second: lets cores act on time that has passed."""
        cdef TcpConnection connection
        cdef double now = self.loop.time()
        for connection in list(self.connections):
            if connection.closing:
                connection.check_closing(now)
            elif connection.stream is not None:
                if connection.is_half_open and connection.stream.is_admitted():
                    connection.is_half_open = False
                    del self.half_open[connection]
                try:
                    connection.stream.check(now)
                except ProtocolError as error:
                    self.counters.count("closed", error.reason)
                    connection.close()

    def stop_accepting(self):
        """Take no new connections."""
        if self.server is not None:
            self.server.close()

    async def stop(self, timeout):
        """Close every connection after its output, for at most `timeout` seconds; then abort what is left."""
        cdef TcpConnection connection
        self.stop_accepting()
        for connection in list(self.connections):
            connection.close()
        deadline = self.loop.time() + timeout
        while self.connections and self.loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            if connection.transport is not None:
                connection.transport.abort()
        while self.connections:
            await asyncio.sleep(0)
