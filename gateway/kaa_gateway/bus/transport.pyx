"""What carries the link's bytes: a socket that the link handles itself, or asyncio's transport for TLS.

A transport of asyncio costs a call of Python for each read and each write, and some objects. Most gateways talk to NATS
over TCP without TLS, so the link reads and writes that socket itself, as the listeners do with those of devices.

Neither of the two bounds what waits to be written. Those who write bound it: the link its backlog, a durable lane what
is not stored, and fleet/outbox what a worker tells others.

Source: send(2), recv(2), sendmsg(2).
"""

import os

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memset

from kaa_gateway.bus.block cimport Block
from kaa_gateway.bus.connection cimport Connection
from kaa_gateway.bus.link cimport Link
from kaa_gateway.tick cimport tick_of

cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr* message, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef enum:
    PIECES_AT_ONCE = 64  # bytes objects and blocks written by one system call


cdef class LinkTransport(TickOutput):
    """What a connection to NATS is carried by; the interface."""

    cdef int write(self, data) except -1:
        """Write bytes, or a sealed Block, at the end of this tick, or as soon as the peer takes them. Hot path."""
        raise NotImplementedError

    cdef Py_ssize_t unwritten(self) except -1:
        """Return the bytes that wait to be written."""
        raise NotImplementedError

    cdef int abort(self) except -1:
        """Close at once. The connection is told nothing."""
        raise NotImplementedError

    cdef int close(self) except -1:
        """Close when everything is written."""
        raise NotImplementedError


cdef class AsyncioTransport(LinkTransport):
    """A transport of asyncio, which does TLS. The connection is its protocol."""

    def __init__(self, transport):
        self.transport = transport

    cdef int write(self, data) except -1:
        self.transport.write(memoryview(data) if isinstance(data, Block) else data)  # TLS takes no other view
        return 0

    cdef Py_ssize_t unwritten(self) except -1:
        return self.transport.get_write_buffer_size()

    cdef int abort(self) except -1:
        self.transport.abort()
        return 0

    cdef int close(self) except -1:
        self.transport.close()
        return 0


cdef class SocketTransport(LinkTransport):
    """A connected, non-blocking TCP socket, which this owns."""

    def __init__(self, loop, Connection connection not None, socket):
        self.loop = loop
        self.tick = tick_of(loop)
        self.connection = connection
        self.socket = socket
        self.fd = socket.fileno()
        self.waiting = []
        loop.add_reader(self.fd, self.on_readable)

    # ------------------------------------------------------------ reading

    def on_readable(self):
        """Read once, then write what is due. Hot path."""
        cdef bint begun = self.tick.begin()
        try:
            self.read()
        finally:
            if begun:
                self.tick.end()

    cdef int read(self) except -1:
        """Read once, into the buffer of the link. Hot path."""
        cdef Connection connection = self.connection
        cdef Link link = connection.link
        cdef ssize_t size = recv(
            self.fd, PyByteArray_AS_STRING(link.receive_storage), <size_t>len(link.receive_storage), MSG_DONTWAIT
        )
        if size > 0:
            try:
                connection.on_bytes(size)
            except Exception as error:
                self.loop.call_exception_handler({"message": "NATS connection ended by a fault", "exception": error})
                self.lose(error)
        elif size == 0:
            self.lose(None)
        elif errno not in (EAGAIN, EINTR):
            self.lose(OSError(errno, os.strerror(errno)))
        return 0

    # ------------------------------------------------------------ writing

    cdef int write(self, data) except -1:
        cdef Block block
        if self.fd < 0 or self.closing or self.failure is not None:
            return 0
        if isinstance(data, Block):
            block = <Block>data
            block.exports += 1
            self.waiting_size += block.size
        else:
            self.waiting_size += len(<bytes?>data)
        self.waiting.append(data)
        return 0 if self.writer_added else self.tick.add(self)

    cdef Py_ssize_t unwritten(self) except -1:
        return self.waiting_size

    cdef int write_due(self) except -1:
        """Write what waits, at the end of a tick. Hot path."""
        return self.flush()

    def on_writable(self):
        """Write what waits: the socket takes some again."""
        self.flush()

    cdef int flush(self) except -1:
        """Write as much as the socket takes, PIECES_AT_ONCE with a system call. Hot path."""
        cdef iovec[PIECES_AT_ONCE] pieces
        cdef msghdr message
        cdef Py_ssize_t count
        cdef ssize_t sent
        if self.fd < 0 or self.failure is not None:
            return 0
        memset(&message, 0, sizeof(message))
        message.msg_iov = pieces
        while self.waiting_size:
            count = 0
            for data in self.waiting:
                if isinstance(data, Block):
                    pieces[count].iov_base = (<Block>data).data
                    pieces[count].iov_len = <size_t>(<Block>data).size
                else:
                    pieces[count].iov_base = PyBytes_AS_STRING(data)
                    pieces[count].iov_len = <size_t>len(<bytes>data)
                count += 1
                if count == PIECES_AT_ONCE:
                    break
            pieces[0].iov_base = <char*>pieces[0].iov_base + self.taken
            pieces[0].iov_len -= <size_t>self.taken
            message.msg_iovlen = <size_t>count
            sent = sendmsg(self.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    break
                return self.on_write_error(errno)
            self.remove_waiting(sent)
        if self.waiting_size == 0 and self.closing:
            self.abort()
        elif self.writer_added != (self.waiting_size != 0):
            self.writer_added = not self.writer_added
            if self.writer_added:
                self.loop.add_writer(self.fd, self.on_writable)
            else:
                self.loop.remove_writer(self.fd)
        return 0

    cdef int remove_waiting(self, Py_ssize_t size) except -1:
        """Forget what the socket has taken, and let go of the blocks of which it has everything. Hot path."""
        cdef Py_ssize_t whole = 0, piece
        self.waiting_size -= size
        size += self.taken
        for data in self.waiting:
            piece = (<Block>data).size if isinstance(data, Block) else len(<bytes>data)
            if size < piece:
                break
            size -= piece
            whole += 1
            if isinstance(data, Block):
                (<Block>data).exports -= 1
        self.taken = size
        del self.waiting[:whole]
        return 0

    cdef int on_write_error(self, int number) except -1:
        """Note that the peer takes no more. What it has said before is read first: it may be the reason."""
        self.failure = OSError(number, os.strerror(number))
        self.loop.call_soon(self.on_failure)
        return 0

    # ------------------------------------------------------------ the end

    def on_failure(self):
        """Read what the peer has said, and end the connection."""
        if self.fd >= 0:
            self.on_readable()
        if self.fd >= 0:
            self.lose(self.failure)

    cdef int lose(self, error) except -1:
        """Close, and tell the connection that it has ended; with an error, or by the peer."""
        self.abort()
        (<Connection>self.connection).connection_lost(error)
        return 0

    cdef object detach(self):
        """Stop using the socket, and return it. What waits to be written is forgotten."""
        found = self.socket
        self.loop.remove_reader(self.fd)
        if self.writer_added:
            self.loop.remove_writer(self.fd)
        self.writer_added = False
        for data in self.waiting:
            if isinstance(data, Block):
                (<Block>data).exports -= 1
        self.waiting.clear()
        self.waiting_size = self.taken = 0
        self.socket = None
        self.fd = -1
        return found

    cdef int abort(self) except -1:
        if self.fd >= 0:
            self.detach().close()
        return 0

    cdef int close(self) except -1:
        if self.fd < 0:
            return 0
        self.closing = True
        self.loop.remove_reader(self.fd)
        return self.flush()
