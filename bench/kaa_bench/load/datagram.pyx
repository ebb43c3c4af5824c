"""Loads over UDP: a datagram a message, answered in any order, and sent again when nothing is heard.

A connection is a connected socket with a window of messages. After `silence` seconds without a word from the server
those unanswered are sent again, the same bytes with the same message ID, so that they have one effect. What a
protocol looks like is in coap_load.pyx and kpudp_load.pyx.

Source: recvmmsg(2), udp(7) for UDP_SEGMENT.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from kaa_bench.load.loop cimport (
    EPOLLIN, EPOLLOUT, IDENTIFIERS_USED_UP, MALFORMED_RESPONSE, MSG_DONTWAIT, NONE, SOCKET_ERROR, UNEXPECTED_PACKET,
    send,
)

cdef extern from "<sys/socket.h>" nogil:
    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, void* timeout)
    int MSG_TRUNC

cdef enum:
    CHECK_PERIOD = 50_000_000  # ns between looks for silent connections
    IDENTIFIERS = 1 << 16
    FIRST = 1                  # number; 0 is for a message that connecting has sent
    SEND_SIZE_MAX = 65000      # bytes a system call
    SOL_UDP = 17
    UDP_SEGMENT = 103          # udp(7); newer than the C library's header on some systems
    WINDOW_MAX = 1024          # messages; answers may be late by half the identifiers


cdef class DatagramLoad(Load):
    """The base of the loads over UDP. `silence` is in seconds."""

    def __cinit__(self, sockets, messages, int window=1, *, double silence=1.0, **_):
        cdef int index
        if window > WINDOW_MAX:
            raise ValueError(f"the window is at most {WINDOW_MAX}")
        self.silence = <int64_t>(silence * 1e9)
        self.numbers = (<int64_t>1) << 62
        self.windows = <Window*>calloc(self.count, sizeof(Window))
        self.states = <uint8_t*>calloc(self.count, self.window)
        self.received_bytes = <uint8_t*>malloc(BATCH * DATAGRAM_SIZE)
        if self.windows == NULL or self.states == NULL or self.received_bytes == NULL:
            raise MemoryError
        if self.message_size > SEND_SIZE_MAX:
            raise ValueError(f"a message is at most {SEND_SIZE_MAX} bytes")
        for index in range(self.count):
            if self.window > 1:
                self.sockets[index].setsockopt(SOL_UDP, UDP_SEGMENT, <int>self.message_size)
            self.windows[index].states = self.states + index * self.window
            self.windows[index].oldest = self.windows[index].next = FIRST
        memset(self.received, 0, sizeof(self.received))
        for index in range(BATCH):
            self.received_at[index] = iovec(self.received_bytes + index * DATAGRAM_SIZE, DATAGRAM_SIZE)
            self.received[index].msg_hdr.msg_iov = &self.received_at[index]
            self.received[index].msg_hdr.msg_iovlen = 1

    def __dealloc__(self):
        free(self.windows)
        free(self.states)
        free(self.received_bytes)

    # ---------------------------------------------------------------- what a protocol adds

    cdef void stamp(self, Connection* connection, int64_t number, uint8_t* message) noexcept nogil:
        """Make the copy at `message` the message of this number: write what differs. Hot path."""

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Read a datagram, borrowed for the call; count successes in `acknowledged`, close what is over. Hot path."""
        return UNEXPECTED_PACKET

    # ---------------------------------------------------------------- the window

    cdef uint8_t* message(self, Connection* connection, int64_t number) noexcept nogil:
        return connection.ring + number % self.window * self.message_size

    cdef uint8_t* state(self, Connection* connection, int64_t number) noexcept nogil:
        """Where a message of the window stands."""
        return &self.windows[connection.index].states[number % self.window]

    cdef int64_t find(self, Connection* connection, uint16_t identifier) noexcept nogil:
        """The number of the unanswered message with this ID, or LATE, or UNKNOWN. Hot path."""
        cdef Window* window = &self.windows[connection.index]
        cdef int64_t ahead = <uint16_t>(identifier - <uint16_t>(window.oldest & 0xFFFF))
        if ahead < window.next - window.unsent - window.oldest:
            return window.oldest + ahead if self.state(connection, window.oldest + ahead)[0] != ANSWERED else LATE
        ahead -= IDENTIFIERS
        return LATE if ahead >= -window.oldest and ahead >= -IDENTIFIERS // 2 else UNKNOWN

    cdef void close_message(self, Connection* connection, int64_t number) noexcept nogil:
        """A message of the window has its answer. Hot path."""
        cdef Window* window = &self.windows[connection.index]
        self.timed(connection, number - (window.next - connection.issued))
        self.state(connection, number)[0] = ANSWERED
        while window.oldest < window.next and self.state(connection, window.oldest)[0] == ANSWERED:
            window.oldest += 1

    # ---------------------------------------------------------------- the socket

    cdef void begin(self, Connection* connection) noexcept nogil:
        self.windows[connection.index].heard_at = self.at

    cdef int64_t written(self, Connection* connection) noexcept nogil:
        return connection.issued - self.windows[connection.index].unsent

    cdef void ready(self, Connection* connection, uint32_t events) noexcept nogil:
        cdef int index, count
        cdef Failure failure
        if events & ~<uint32_t>EPOLLOUT:
            count = recvmmsg(connection.fd, self.received, <unsigned int>min(self.window, BATCH), MSG_DONTWAIT, NULL)
            if count < 0 and errno != EAGAIN and errno != EINTR:
                self.give_up(connection, SOCKET_ERROR)
                return
            if count > 0:
                self.windows[connection.index].heard_at = self.at
            for index in range(count):
                self.moved += self.received[index].msg_len
                failure = MALFORMED_RESPONSE
                if not self.received[index].msg_hdr.msg_flags & MSG_TRUNC:
                    failure = self.take(
                        connection, <const uint8_t*>self.received_at[index].iov_base, self.received[index].msg_len
                    )
                if failure != NONE:
                    self.give_up(connection, failure)
                    return
        if connection.working:
            self.fill(connection)

    cdef void fill(self, Connection* connection) noexcept nogil:
        cdef Window* window = &self.windows[connection.index]
        cdef int64_t room = self.allowed(connection, window.next - window.oldest)
        room = min(room, self.numbers - window.next)
        self.remaining -= room
        while room > 0:
            self.stamp(connection, window.next, self.message(connection, window.next))
            self.state(connection, window.next)[0] = SENT
            window.next += 1
            window.unsent += 1
            connection.issued += 1
            room -= 1
        if window.unsent:
            self.send_unsent(connection)
        if connection.fd < 0:
            return
        if window.oldest == window.next:
            if self.remaining == 0:
                self.finish(connection)
            elif window.next == self.numbers:
                self.give_up(connection, IDENTIFIERS_USED_UP)
                return
        self.watch(connection, <uint32_t>(EPOLLIN | EPOLLOUT) if window.unsent else <uint32_t>EPOLLIN)

    cdef void send_unsent(self, Connection* connection) noexcept nogil:
        """Send what the socket takes of the messages that were issued and not sent. Hot path.

        Messages lie one behind the other in the ring, and the kernel cuts what one call sends into datagrams.
        """
        cdef Window* window = &self.windows[connection.index]
        cdef int64_t first, count
        cdef ssize_t sent
        while window.unsent:
            first = window.next - window.unsent
            count = min(min(window.unsent, <int64_t>BATCH), self.window - first % self.window)
            count = min(count, <int64_t>(SEND_SIZE_MAX // self.message_size))
            sent = send(
                connection.fd, self.message(connection, first), <size_t>(count * self.message_size), MSG_DONTWAIT
            )
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno != EAGAIN:
                    self.give_up(connection, SOCKET_ERROR)
                return
            window.unsent -= count
            self.moved += sent

    cdef void tick(self) noexcept nogil:
        cdef Connection* connection
        cdef int index
        if self.at - self.checked_at < CHECK_PERIOD:
            return
        self.checked_at = self.at
        for index in range(self.count):
            connection = &self.connections[index]
            if connection.working and self.at - self.windows[index].heard_at >= self.silence:
                self.windows[index].heard_at = self.at
                self.send_again(connection)

    cdef void send_again(self, Connection* connection) noexcept nogil:
        """Send every unanswered message of the window again; what the socket does not take now waits for the next time.

        It does not count as movement: a server that stays silent is a stall.
        """
        cdef Window* window = &self.windows[connection.index]
        cdef int64_t number
        for number in range(window.oldest, window.next - window.unsent):
            if self.state(connection, number)[0] == SENT:
                if send(connection.fd, self.message(connection, number), <size_t>self.message_size, MSG_DONTWAIT) > 0:
                    self.retransmitted += 1
