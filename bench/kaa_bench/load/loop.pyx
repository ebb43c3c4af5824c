"""The event loop of every load: connected sockets in one epoll set, prebuilt messages, and a window.

A load sends messages from a ring of prebuilt copies, keeps at most `window` of them unacknowledged on each connection,
and ends when all are answered. A paced run sends at a fixed rate, independent of the answers (open loop): message k of
all is due at the time k / rate, on the connections in turn, and its latency counts from then. So the time for which a
server stalls is part of the latency of every message that it delays (no coordinated omission).

Sending and receiving are in stream.pyx (TCP) and datagram.pyx (UDP), the protocols in the classes derived from those.
Connecting is in connecting.py.
"""

import time
from typing import NamedTuple

from libc.errno cimport errno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close

from kaa_bench.errors import BenchError

FAILURES = (
    "none", "closed by peer", "socket error", "unexpected packet", "wrong identifier", "malformed response",
    "message IDs used up",
)
"""The names of failures in a result. Answers that are errors have other names, such as `status 503`."""

OVERTIME_S = 5.0
"""How much longer than planned a paced run may take; for longer runs it is their duration."""

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD

    ctypedef union epoll_data_t:
        void* ptr

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int size, int timeout_ms)

cdef extern from "<poll.h>" nogil:
    enum:
        POLLIN

    struct pollfd:
        int fd
        short events
        short revents

    int ppoll(pollfd* fds, unsigned long count, const timespec* timeout, void* signals)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        SHUT_RDWR
    int shutdown(int fd, int how)

cdef enum:
    EVENTS_SIZE = 256     # ready sockets an epoll_wait
    WAIT_MS = 100         # the greatest delay in noticing a stall
    LATE = 1_000_000      # ns; a message that is sent this much too late is counted
    RINGS_SIZE_MAX = 1 << 30  # bytes of prebuilt messages

cdef int64_t FOREVER = (<int64_t>1) << 62  # messages or nanoseconds without limit


cdef int64_t now() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return <int64_t>at.tv_sec * 1_000_000_000 + at.tv_nsec


class RunResult(NamedTuple):
    """The result of a run: messages that the sockets took, and how many of these were acknowledged.

    `errors` is a count by kind. `retransmitted` counts datagrams that were sent again after silence. `seconds` is the
    time from the first byte to the last answer, `cpu_seconds` the CPU time of the generator's process. For a paced run,
    `planned` is the number of messages, `late` how many the generator sent too late, `held` how many had to wait for
    the window; `latency` is in nanoseconds.
    """

    sent: int
    acknowledged: int
    errors: dict[str, int]
    seconds: float
    cpu_seconds: float
    retransmitted: int
    planned: int = 0
    late: int = 0
    held: int = 0
    latency: Histogram | None = None


cdef class Load:
    """Sends copies of a message on each connected socket; the base class of all loads.

    `sockets` are connected and past any handshake; the load makes them non-blocking and closes them. `messages` has one
    message for each socket, all of one size.
    """

    def __cinit__(self, sockets, messages, int window=1, **_):
        cdef Connection* connection
        cdef epoll_event event
        cdef const uint8_t* message
        cdef Py_ssize_t ring_size
        cdef int index, slot
        self.epoll = -1
        self.sockets = list(sockets)
        if not self.sockets or len(self.sockets) != len(messages) or window < 1:
            raise ValueError("a load needs at least one socket, one message for each, and a window")
        self.message_size = len(messages[0])
        if not self.message_size or any(len(message) != self.message_size for message in messages):
            raise ValueError("the messages of a load have one size, and are not empty")
        self.count = len(self.sockets)
        self.window = window
        if self.message_size > RINGS_SIZE_MAX // self.window // self.count:
            raise ValueError(f"a load's prebuilt messages take at most {RINGS_SIZE_MAX} bytes")
        ring_size = self.message_size * self.window
        self.connections = <Connection*>calloc(self.count, sizeof(Connection))
        self.rings = <uint8_t*>malloc(<size_t>(ring_size * self.count))
        if self.connections == NULL or self.rings == NULL:
            raise MemoryError
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, "epoll_create1")
        for index in range(self.count):
            self.sockets[index].setblocking(False)
            connection = &self.connections[index]
            connection.fd = self.sockets[index].fileno()
            connection.index = index
            connection.ring = self.rings + index * ring_size
            message = messages[index]
            for slot in range(self.window):
                memcpy(connection.ring + slot * self.message_size, message, <size_t>self.message_size)
            connection.interest = EPOLLIN
            event.events = EPOLLIN
            event.data.ptr = connection
            if epoll_ctl(self.epoll, EPOLL_CTL_ADD, connection.fd, &event) < 0:
                raise OSError(errno, "epoll_ctl")

    def __dealloc__(self):
        if self.epoll >= 0:
            close(self.epoll)
        free(self.connections)
        free(self.rings)

    def close(self):
        """Close the sockets."""
        for connected in self.sockets:
            connected.close()

    def run(self, *, messages=None, seconds=None, double rate=0, double stall_timeout):
        """Send `messages`, or for `seconds`, wait for outstanding answers, and return a RunResult.

        With a `rate` the run is paced at that many messages a second over all connections. If the server cannot keep
        up, the run takes up to OVERTIME_S longer, or twice its time; messages that are not sent then are in `planned`
        and not in `sent`.

        Raise BenchError if no byte moves for `stall_timeout` seconds. The load cannot be used afterwards.
        """
        cdef Connection* connection
        cdef int64_t deadline, sent = 0, acknowledged = 0
        cdef int64_t stall_time = <int64_t>(stall_timeout * 1e9)
        cdef int index
        if (messages is None) == (seconds is None):
            raise ValueError("a run ends after `messages` or after `seconds`, one of the two")
        if rate < 0 or (rate and self.unacknowledged):
            raise ValueError("a paced run has a positive rate, and messages that are answered")
        if rate and messages is None:
            messages = max(1, int(rate * seconds))
        if rate:
            seconds = messages / rate + max(OVERTIME_S, messages / rate)
        self.period = 1e9 / rate if rate else 0
        self.planned = messages if rate else 0
        self.due = self.late = self.held = 0
        self.latency = Histogram()
        self.remaining = FOREVER if messages is None else messages
        memset(self.failures, 0, sizeof(self.failures))
        self.working = 0
        self.retransmitted = 0
        self.at = now()
        for index in range(self.count):
            connection = &self.connections[index]
            connection.issued = connection.acknowledged = 0
            connection.working = connection.fd >= 0
            self.working += connection.working
            self.begin(connection)
        if not self.working:
            raise BenchError("every connection of the load generator is lost")
        cpu_started = time.process_time()
        self.started = now()
        deadline = FOREVER if seconds is None else self.started + <int64_t>(<double>seconds * 1e9)
        with nogil:
            self.drive(deadline, stall_time)
        elapsed = (now() - self.started) / 1e9
        cpu_seconds = time.process_time() - cpu_started
        for index in range(self.count):
            connection = &self.connections[index]
            sent += self.written(connection)
            acknowledged += 0 if self.unacknowledged else connection.acknowledged
        if self.working:
            raise BenchError(
                f"stalled: nothing moved for {stall_timeout:g} s, {self.working} of {self.count} connections "
                f"unfinished, {sent} messages sent, {acknowledged} acknowledged"
            )
        errors = {name: count for name, count in zip(FAILURES, self.failures, strict=True) if count}
        return RunResult(
            sent, acknowledged, errors | self.refusals(), elapsed, cpu_seconds, self.retransmitted,
            self.planned, self.late, self.held, self.latency if rate else None,
        )

    def progress(self):
        """Return how many messages of the run are sent and acknowledged so far. Another thread may ask during a run."""
        cdef int64_t sent = 0, acknowledged = 0
        cdef int index
        for index in range(self.count):
            sent += self.written(&self.connections[index])
            acknowledged += self.connections[index].acknowledged
        return sent, 0 if self.unacknowledged else acknowledged

    cdef void begin(self, Connection* connection) noexcept nogil:
        """Prepare a connection for a run."""

    cdef void ready(self, Connection* connection, uint32_t events) noexcept nogil:
        """Serve a socket that is readable, writable or broken; reading a broken one fails. Hot path."""

    cdef void fill(self, Connection* connection) noexcept nogil:
        """Issue the messages that the window and the run allow, and send those that the socket takes. Hot path."""

    cdef void tick(self) noexcept nogil:
        """Do work that depends on the time. Called after sockets were served, and at least every WAIT_MS."""

    cdef int64_t written(self, Connection* connection) noexcept nogil:
        """Return the number of messages of this run that the socket has taken completely."""
        return connection.issued

    cdef dict refusals(self):
        """Return the answers of this run that are errors, by kind, and reset their counts."""
        return {}

    cdef int64_t allowed(self, Connection* connection, int64_t outstanding) noexcept nogil:
        """Return how many messages may be issued now. Hot path."""
        cdef int64_t room = min(self.window - outstanding, self.remaining)
        if self.period:
            # Message k of all belongs to connection k % count.
            room = min(room, (self.due - connection.index + self.count - 1) // self.count - connection.issued)
        return max(room, <int64_t>0)

    cdef int64_t intended(self, int64_t number) noexcept nogil:
        """Return the time at which message `number` of all should be sent. Hot path."""
        return self.started + <int64_t>(<double>number * self.period)

    cdef void timed(self, Connection* connection, int64_t number) noexcept nogil:
        """Record the latency of the n-th message of the connection in this run. Hot path."""
        if self.period:
            self.latency.add(now() - self.intended(number * self.count + connection.index))

    cdef void issue_due(self) noexcept nogil:
        """Send the messages that are due. Hot path of a paced run."""
        cdef Connection* connection
        while self.due < self.planned and self.intended(self.due) <= self.at:
            connection = &self.connections[self.due % self.count]
            self.late += self.at - self.intended(self.due) > LATE
            self.due += 1
            if connection.working:
                self.fill(connection)
                self.held += connection.issued * self.count + connection.index < self.due
            # Time passes while sockets are written.
            if self.due % EVENTS_SIZE == 0:
                self.at = now()

    cdef int64_t wait_time(self) noexcept nogil:
        """Return how long to wait for sockets, in ns."""
        cdef int64_t longest = <int64_t>WAIT_MS * 1_000_000
        if not self.period or self.due == self.planned:
            return longest
        return max(<int64_t>0, min(longest, self.intended(self.due) - now()))

    cdef void drive(self, int64_t deadline, int64_t stall_time) noexcept nogil:
        """Serve the sockets until no connection is working, or nothing has moved for `stall_time` ns."""
        cdef epoll_event events[EVENTS_SIZE]
        cdef int64_t moved_at = self.at, moved_before = self.moved, wait
        cdef int index, count
        cdef bint ending = False
        cdef pollfd waiting = pollfd(self.epoll, POLLIN, 0)
        cdef timespec timeout
        for index in range(self.count):
            if self.connections[index].working:
                self.fill(&self.connections[index])
        while self.working:
            wait = self.wait_time()
            if self.period and wait:
                # epoll_wait counts in milliseconds.
                timeout.tv_sec = 0
                timeout.tv_nsec = wait
                ppoll(&waiting, 1, &timeout, NULL)
                wait = 0
            count = epoll_wait(self.epoll, events, EVENTS_SIZE, <int>(wait // 1_000_000))
            self.at = now()
            for index in range(count):
                self.ready(<Connection*>events[index].data.ptr, events[index].events)
            if self.period:
                self.issue_due()
            self.tick()
            if self.at >= deadline:
                self.remaining = 0
            if self.period and self.remaining == 0 and not ending:
                # A connection without outstanding messages gets no more events.
                ending = True
                for index in range(self.count):
                    if self.connections[index].working:
                        self.fill(&self.connections[index])
            if self.moved != moved_before or (self.period and self.due < self.planned):
                moved_before = self.moved
                moved_at = self.at
            elif self.at - moved_at > stall_time:
                break

    cdef void finish(self, Connection* connection) noexcept nogil:
        """Mark a connection as done in this run."""
        connection.working = False
        self.working -= 1

    cdef void give_up(self, Connection* connection, Failure failure) noexcept nogil:
        """Count the failure and close the connection; its outstanding messages stay unacknowledged."""
        self.failures[<int>failure] += 1
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, connection.fd, NULL)
        shutdown(connection.fd, SHUT_RDWR)
        connection.fd = -1
        if connection.working:
            self.finish(connection)

    cdef void watch(self, Connection* connection, uint32_t interest) noexcept nogil:
        cdef epoll_event event
        if connection.interest != interest:
            connection.interest = interest
            event.events = interest
            event.data.ptr = connection
            epoll_ctl(self.epoll, EPOLL_CTL_MOD, connection.fd, &event)
