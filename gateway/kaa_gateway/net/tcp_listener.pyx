"""A listening TCP port: accepts connections, reads and writes those that are ready, and ends those that are idle.

The connections of a listener are in one epoll set, which the event loop watches as a whole: a transport of asyncio
would cost an object for each connection, and a call of Python for each read. The event loop watches listening sockets
itself, which spares a system call for each connection.

What lives here: accepting, the tick (read what is ready, then flush), half-open connections, time-outs, the stop. What
does not: one connection (tcp_connection.pyx).
"""

import asyncio
from collections import OrderedDict

from libc.errno cimport ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdint cimport uint8_t

import structlog

from kaa_gateway.errors import ProtocolError
from kaa_gateway.net.listening import listen

from kaa_gateway.net.epoll cimport EPOLLIN, EPOLLOUT, epoll_event
from kaa_gateway.net.proxy_connection cimport ProxyConnection
from kaa_gateway.net.tcp_connection cimport RECEIVE_SIZE
from kaa_gateway.tick cimport tick_of

log = structlog.get_logger("gateway.transports")

cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr:
        pass
    ctypedef unsigned int socklen_t
    int accept4(int fd, sockaddr* address, socklen_t* size, int flags)
    int SOCK_CLOEXEC
    int SOCK_NONBLOCK

cdef extern from "<unistd.h>" nogil:
    int close_descriptor "close"(int fd)

cdef enum:
    EVENTS_AT_ONCE = 512        # handled in one pass of the loop
    ACCEPTED_AT_ONCE = 64       # connections accepted in one pass of the loop
    ACCEPTED_ALONE = 16         # passes that accept one connection, before one asks for more
    ADDRESS_SIZE_MAX = 128      # bytes of a sockaddr_storage
    HEADERS_MAX = 10000         # connections whose header of the PROXY protocol is awaited, without Admission
    HALF_OPEN_SCAN = 64         # connections looked at for one that is still half-open
    CHECKED_PER_CALL = 500      # connections looked at for what is due before other sockets have their turn
    WORK_PER_PASS = 512 * 1024  # bytes read, and what counts as so many, before other sockets have their turn

cdef double ACCEPT_BURST = 0.1  # seconds' worth of connections that may be accepted at once
cdef double ACCEPT_TURN = 0.02  # seconds without accepting, at least, when connections come too fast
cdef double ACCEPT_GRACE = 1.0  # seconds in which a silent connection is not closed to make room for another
cdef double ACCEPT_PAUSE = 0.5  # seconds without accepting, after descriptors or memory have run out
cdef double STOP_LINGER = 0.25  # seconds that peers have to close their side when the listener stops


cdef class ListeningSocket:
    """A socket of a TcpListener at which clients connect."""

    def on_ready(self):
        """Accept the connections that wait; the event loop calls it, which costs less without an argument."""
        self.listener.on_connections(self.fd)


cdef class TcpListener:
    """A listening port and its connections. `protocol` names the counters; `output_max` is in bytes.

    `admission` has the limits that are common to all listeners of a worker.
    """

    def __init__(
        self, loop, ProtocolServer server not None, Counters counters not None, *, str protocol,
        Py_ssize_t output_max, Py_ssize_t connections_max, Admission admission=None,
    ):
        self.loop = loop
        self.tick = tick_of(loop)
        self.server = server
        self.counters = counters
        self.admission = admission
        self.protocol = counters.add_protocol(protocol)
        self.output_max = output_max
        self.connections_max = connections_max
        self.receive_storage = bytearray(RECEIVE_SIZE)
        self.receive_view = memoryview(self.receive_storage)
        self.sockets = []
        self.connections = []
        self.headers = OrderedDict()

    def start(self, host, port, *, reuse_port):
        """Listen. Raises OSError if the port is taken."""
        cdef ListeningSocket listening
        for opened in listen(host, port, reuse_port=reuse_port):
            listening = ListeningSocket()
            listening.listener = self
            listening.socket = opened
            listening.fd = opened.fileno()
            self.sockets.append(listening)
        self.epoll = EpollSet(self.loop, self.on_ready)
        self.set_accepting(True)

    @property
    def port(self):
        """The port it listens on, which the system has chosen if 0 was asked for."""
        return (<ListeningSocket>self.sockets[0]).socket.getsockname()[1]

    def set_limits(self, Py_ssize_t output_max, Py_ssize_t connections_max, double accept_rate=0):
        """Set other bounds, which hold for output and connections that come from now on.

        `accept_rate` is in connections a second; 0 is any.
        """
        self.output_max = output_max
        self.connections_max = connections_max
        self.accept_rate = accept_rate
        self.accept_bucket = Bucket(accept_rate * ACCEPT_BURST, self.loop.time())

    def use_proxy_protocol(self, ProxyProtocol proxy not None):
        """Believe trusted proxies for which clients they speak. Call it before `start`."""
        self.proxy = proxy

    def connection_count(self):
        """Return the number of open connections."""
        return self.connected

    # ------------------------------------------------------------ the tick

    def on_ready(self):
        """Read and write the connections that are ready, then write the output of the cores. Hot path."""
        cdef epoll_event[EVENTS_AT_ONCE] events
        cdef TcpConnection connection
        cdef int i, fd, count = self.epoll.wait(events, EVENTS_AT_ONCE)
        cdef bint begun = self.tick.begin()
        try:
            self.work = 0
            for i in range(count):
                if self.work >= WORK_PER_PASS:
                    break  # the others are still ready in the next pass, and first
                fd = events[i].data.fd
                connection = self.connections[fd] if fd < len(self.connections) else None
                if connection is not None:  # it may have been closed earlier in this pass
                    self.handle(connection, events[i].events)
        finally:
            if begun:
                self.tick.end()

    cdef int on_connections(self, int listening) except -1:
        """Accept the connections that wait at a listening socket, then write the output of the cores."""
        cdef bint begun = self.tick.begin()
        try:
            self.accept(listening)
        finally:
            if begun:
                self.tick.end()
        return 0

    cdef int handle(self, TcpConnection connection, uint32_t events) except -1:
        """Read and write one connection. A fault of the gateway closes this one, and not others. Hot path."""
        try:
            if connection.interest & EPOLLOUT:
                connection.write_unsent()
            if connection.fd >= 0 and connection.interest & EPOLLIN and events != EPOLLOUT \
                    and (not connection.closing or connection.lingering):
                connection.read()
        except Exception as error:
            self.on_fault(connection, error)
        return 0

    def on_fault(self, TcpConnection connection, error):
        """Abort a connection in whose handling the gateway has failed, and report the error."""
        self.loop.call_exception_handler({"message": "a connection ended by a fault", "exception": error})
        connection.abort()

    cdef int write_due(self) except -1:
        """Write the output of all cores that have asked for it; the end of a tick. Hot path."""
        cdef TcpConnection connection, following = self.flush_first
        self.flush_first = self.flush_last = None  # who asks again from now on is written in the next round
        while following is not None:
            connection = following
            following = connection.next_to_flush
            connection.next_to_flush = None
            connection.flush_pending = False
            try:
                connection.flush()
            except Exception as error:
                self.on_fault(connection, error)
        return 0

    # ------------------------------------------------------------ new connections

    cdef int accept(self, int listening) except -1:
        """Accept the connections that wait at a listening socket, and read each at once.

        A client has mostly sent its first bytes by then, which so need no pass of their own. Mostly one connection
        waits, and asking for a second would be a wasted system call. So only one pass in ACCEPTED_ALONE asks for more,
        and those that follow while there are more.
        """
        cdef uint8_t[ADDRESS_SIZE_MAX] address
        cdef TcpConnection connection
        cdef socklen_t size
        cdef int fd, i, count = 1
        if self.accepted_alone >= ACCEPTED_ALONE:
            count = ACCEPTED_AT_ONCE
            self.accepted_alone = 0
        else:
            self.accepted_alone += 1
        for i in range(count):
            if self.accept_rate > 0 and not self.may_accept():
                return 0
            size = ADDRESS_SIZE_MAX
            fd = accept4(listening, <sockaddr*>address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                    self.counters.count("paused", "no_descriptors")
                    log.warning("accepting pauses: no more descriptors, or memory", connections=self.connected)
                    return self.pause_accepting(ACCEPT_PAUSE)
                if errno in (ECONNABORTED, EINTR):
                    continue
                return 0
            if i:
                self.accepted_alone = ACCEPTED_ALONE  # the next pass asks for more, too
            self.serve(fd, address, min(<Py_ssize_t>size, <Py_ssize_t>ADDRESS_SIZE_MAX))
            connection = self.connections[fd] if fd < len(self.connections) else None
            if connection is not None:
                self.handle(connection, EPOLLIN)
        return 0

    cdef int serve(self, int fd, const uint8_t* address, Py_ssize_t size) except -1:
        """Start a connection over a connected socket, which it owns from now on.

        `address` is the peer's sockaddr, borrowed for the call.
        """
        cdef TcpConnection connection
        if self.connected >= self.connections_max:
            self.counters.count("closed", "too_many_connections")
            close_descriptor(fd)
            return 0
        if self.proxy is None:
            connection = self.make_connection()
        elif self.proxy.trusts(address, size):
            connection = ProxyConnection.__new__(ProxyConnection)
        elif self.proxy.refuses_others:
            self.counters.count("closed", "proxy_untrusted_source")
            close_descriptor(fd)
            return 0
        else:
            connection = self.make_connection()
        connection.listener = self
        connection.fd = -1
        if self.admission is not None and not connection.admit(address, size):
            close_descriptor(fd)
            return 0
        while fd >= len(self.connections):
            self.connections.append(None)
        self.connections[fd] = connection
        self.connected += 1
        self.counters.connections_opened[<int>self.protocol] += 1
        connection.fd = fd
        try:
            connection.start(address, size)
            connection.set_interest()
        except Exception as error:
            self.on_fault(connection, error)
        return 0

    def serve_descriptor(self, int fd, bytes address not None):
        """Do what `serve` does, for Python code."""
        self.serve(fd, <const uint8_t*>address, len(address))

    cdef TcpConnection make_connection(self):
        return TcpConnection.__new__(TcpConnection)

    cdef int add_header(self, TcpConnection connection) except -1:
        """Wait for a header. If too many are awaited, the oldest connection is closed."""
        cdef Py_ssize_t headers_max = HEADERS_MAX if self.admission is None else self.admission.half_open_max
        if len(self.headers) >= headers_max:
            self.counters.count("closed", "proxy_headers_full")
            (<TcpConnection>next(iter(self.headers))).abort()
        self.headers[connection] = self.loop.time() + self.proxy.header_timeout
        return 0

    cdef int remove_header(self, TcpConnection connection) except -1:
        """Wait no longer for the header of a connection."""
        self.headers.pop(connection, None)
        return 0

    cdef int close_without_header(self, double now) except -1:
        """Close the connections of proxies whose headers are overdue, a slice of them at a time."""
        cdef double due
        cdef int _
        for _ in range(CHECKED_PER_CALL):
            connection, due = next(iter(self.headers.items()), (None, 0.0))
            if connection is None or due > now:
                break
            self.counters.count("closed", "proxy_header_timeout")
            (<TcpConnection>connection).abort()
        return 0

    cdef bint may_accept(self) except -1:
        """Count a connection that is about to be accepted. Return False if it must wait in the kernel's queue.

        While as many are half-open as may be, none that waits for the gateway, or is new, is closed for a newer one.
        """
        cdef TcpConnection oldest
        cdef double wait, now = self.loop.time()
        if self.admission is not None and self.half_open >= self.admission.half_open_max:
            oldest = self.oldest_half_open()
            if oldest is not None and (not oldest.interest & EPOLLIN or now - oldest.message_bucket.at < ACCEPT_GRACE):
                self.counters.count("paused", "half_open_connections")
                self.pause_accepting(ACCEPT_TURN)
                return False
        wait = self.take_turn()
        if wait > 0:
            self.counters.count("paused", "accept_rate")
            self.pause_accepting(max(wait, ACCEPT_TURN))
            return False
        return True

    cdef double take_turn(self) except -1:
        """Take a connection out of the bucket. Return the seconds to wait if there is none."""
        cdef Bucket* bucket = &self.accept_bucket
        cdef double now = self.loop.time(), size = max(self.accept_rate * ACCEPT_BURST, 1.0)
        bucket.tokens = min(bucket.tokens + (now - bucket.at) * self.accept_rate, size)
        bucket.at = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / self.accept_rate
        bucket.tokens -= 1
        return 0

    cdef int pause_accepting(self, double seconds) except -1:
        """Let new connections wait in the kernel for a while, in the order in which they came."""
        self.accepting_paused = True
        self.set_accepting(False)
        self.loop.call_later(seconds, self.resume_accepting)
        return 0

    def resume_accepting(self):
        """Accept again after a pause, unless the listener has been stopped."""
        if self.accepting_paused:
            self.accepting_paused = False
            self.set_accepting(True)

    cdef int set_accepting(self, bint accepting) except -1:
        cdef ListeningSocket listening
        for listening in self.sockets:
            if accepting:
                self.loop.add_reader(listening.fd, listening.on_ready)
            else:
                self.loop.remove_reader(listening.fd)
        return 0

    def close_half_open(self):
        """Make room for a new connection: close the one that has been half-open for longest.

        Those that wait for the gateway, for example to be authenticated, are closed only if there are no others.
        """
        cdef TcpConnection oldest = self.oldest_half_open()
        if oldest is not None:
            self.counters.count("closed", "half_open_connections")
            oldest.abort()

    cdef TcpConnection oldest_half_open(self):
        """Return the connection that has been half-open for longest; one that waits for the gateway if all do."""
        cdef TcpConnection connection = self.half_open_first, after, oldest = None
        cdef int _
        for _ in range(HALF_OPEN_SCAN):
            if connection is None:
                break
            after = connection.half_open_after
            if connection.core is not None and connection.core.is_admitted():
                connection.leave_half_open()  # it was admitted, and nothing has been read since
            elif connection.interest & EPOLLIN:
                return connection
            elif oldest is None:
                oldest = connection
            connection = after
        return oldest

    def half_open_count(self):
        """Return the number of connections that are not admitted yet; it may include some just admitted."""
        return self.half_open

    # ------------------------------------------------------------ time and the end

    def check(self):
        """Apply time-outs, and free idle buffers. Call it about once a second, and again if it returns True."""
        cdef TcpConnection connection
        cdef double now = self.loop.time()
        cdef Py_ssize_t begin = self.checked
        if self.headers:
            self.close_without_header(now)
        self.checked += CHECKED_PER_CALL
        for connection in self.connections[begin:begin + CHECKED_PER_CALL]:
            if connection is None:
                continue
            if connection.closing:
                connection.check_closing(now)
            elif connection.core is not None:
                if connection.is_half_open and connection.core.is_admitted():
                    connection.leave_half_open()
                if connection.core.output.size == 0:
                    connection.core.output.clear(0)
                if connection.paused_by_writer:
                    connection.check_progress(now)
                try:
                    connection.core.check(now)
                except ProtocolError as error:
                    self.counters.count("closed", error.reason)
                    connection.core.explain(error.reason)
                    connection.close()
        if self.checked < len(self.connections):
            return True
        self.checked = 0
        return False

    def stop_accepting(self):
        """Close the listening sockets."""
        cdef ListeningSocket listening
        if not self.accepting_paused:
            self.set_accepting(False)
        self.accepting_paused = False
        for listening in self.sockets:
            listening.socket.close()
        self.sockets = []

    def redirect(self, Py_ssize_t count, bint permanent):
        """Send the clients of at most `count` connections to another server. Return how many were sent.

        Connections that are not admitted yet, and those of protocols that cannot say it, stay.
        """
        cdef TcpConnection connection
        cdef Py_ssize_t sent = 0
        cdef int _
        for _ in range(len(self.connections)):
            if sent >= count:
                break
            if self.redirected_to >= len(self.connections):
                self.redirected_to = 0
            connection = self.connections[self.redirected_to]
            self.redirected_to += 1
            if connection is None or connection.core is None or connection.closing or connection.redirected:
                continue
            try:
                connection.redirected = connection.core.redirect(permanent)
            except Exception as error:
                self.on_fault(connection, error)
                continue
            if connection.redirected:
                sent += 1
        return sent

    def is_writing(self):
        """Return whether a connection still has output to write."""
        cdef TcpConnection connection
        for connection in self.connections:
            if connection is not None and not connection.lingering:
                return True
        return False

    async def stop(self, timeout):
        """Close every connection after its output. Abort those that are left after `timeout` seconds.

        Peers that have all output get STOP_LINGER seconds to close their side.
        """
        cdef TcpConnection connection
        cdef double deadline
        self.stop_accepting()
        for number, connection in enumerate(list(self.connections), 1):
            if connection is not None:
                if connection.core is not None and not connection.closing:
                    connection.core.explain_stop()
                connection.close()
            if number % CHECKED_PER_CALL == 0:
                await asyncio.sleep(0)
        deadline = self.loop.time() + timeout
        while self.is_writing() and self.loop.time() < deadline:
            await asyncio.sleep(0.01)
        deadline = min(deadline, self.loop.time() + STOP_LINGER)
        while self.connected and self.loop.time() < deadline:
            await asyncio.sleep(0.01)
        for number, connection in enumerate(list(self.connections), 1):
            if connection is not None:
                connection.abort()
            if number % CHECKED_PER_CALL == 0:
                await asyncio.sleep(0)
        if self.epoll is not None:
            self.epoll.close()
