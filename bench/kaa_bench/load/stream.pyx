"""The base of the loads over TCP and TLS: messages in a stream of bytes, answered in their order.

Messages without acknowledgement are followed by a fence: a request whose answer shows that the server has read all
messages before it. The protocols are in mqtt.pyx, http.pyx and nats.pyx.
"""

import ssl

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, EIO, errno
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from kaa_bench.load.loop cimport (
    CLOSED_BY_PEER, EPOLLIN, EPOLLOUT, MSG_DONTWAIT, MSG_NOSIGNAL, NONE, SOCKET_ERROR, UNEXPECTED_PACKET, recv, send,
)

cdef enum:
    RECEIVE_SIZE = 65536  # bytes a read


cdef class StreamLoad(Load):
    """The base of the loads over TCP, and over TLS if the sockets are of class ssl.SSLSocket.

    `fence` is the request that follows messages without acknowledgement; empty if every message is acknowledged.
    """

    def __cinit__(self, sockets, messages, int window=1, *, bytes fence=b"", **_):
        self.fence = fence
        self.fence_data = self.fence
        self.fence_size = len(self.fence)
        self.unacknowledged = self.fence_size > 0
        self.encrypted = isinstance(self.sockets[0], ssl.SSLSocket)
        self.streams = <Stream*>calloc(self.count, sizeof(Stream))
        self.received_bytes = <uint8_t*>malloc(RECEIVE_SIZE)
        if self.streams == NULL or self.received_bytes == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.streams)
        free(self.received_bytes)

    cdef void begin(self, Connection* connection) noexcept nogil:
        self.streams[connection.index] = Stream(0, self.fence_size, self.fence_size == 0)

    cdef void stamp(self, Connection* connection, uint8_t* message) noexcept nogil:
        """Write into the copy at `message` what differs from message to message. Hot path."""

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Read answers, count them in `acknowledged`, set `fenced`. `data` is borrowed for the call. Hot path."""
        return UNEXPECTED_PACKET

    cdef ssize_t receive(self, Connection* connection) noexcept nogil:
        """Read into `received_bytes`. Return the number of bytes, or a negative error number. Hot path."""
        cdef ssize_t size
        if self.encrypted:
            return self.receive_encrypted(connection.index)
        size = recv(connection.fd, self.received_bytes, RECEIVE_SIZE, MSG_DONTWAIT)
        return -errno if size < 0 else size

    cdef ssize_t transmit(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Write bytes. Return how many were taken, or a negative error number. Hot path."""
        cdef ssize_t taken
        if self.encrypted:
            return self.transmit_encrypted(connection.index, data, size)
        taken = send(connection.fd, data, <size_t>size, MSG_DONTWAIT | MSG_NOSIGNAL)
        return -errno if taken < 0 else taken

    cdef ssize_t receive_encrypted(self, int index) noexcept with gil:
        """Read as `receive` does. A record is read whole, so that nothing waits in OpenSSL."""
        try:
            received = self.sockets[index].recv(RECEIVE_SIZE)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return -EAGAIN
        except OSError:
            return -EIO
        memcpy(self.received_bytes, <const uint8_t*>received, <size_t>len(received))
        return len(received)

    cdef ssize_t transmit_encrypted(self, int index, const uint8_t* data, Py_ssize_t size) noexcept with gil:
        """Write as `transmit` does."""
        try:
            return self.sockets[index].send(PyMemoryView_FromMemory(<char*>data, size, PyBUF_READ))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return -EAGAIN
        except OSError:
            return -EIO

    cdef int64_t written(self, Connection* connection) noexcept nogil:
        cdef Py_ssize_t unsent = self.streams[connection.index].unsent
        return connection.issued - (unsent + self.message_size - 1) // self.message_size

    cdef void ready(self, Connection* connection, uint32_t events) noexcept nogil:
        cdef ssize_t size
        cdef Failure failure
        if events & ~<uint32_t>EPOLLOUT:
            size = self.receive(connection)
            if size > 0:
                self.moved += size
                failure = self.take(connection, self.received_bytes, size)
                if failure != NONE:
                    self.give_up(connection, failure)
                    return
            elif size == 0:
                self.give_up(connection, CLOSED_BY_PEER)
                return
            elif size != -EAGAIN and size != -EINTR:
                self.give_up(connection, SOCKET_ERROR)
                return
        if connection.working:
            self.fill(connection)

    cdef void fill(self, Connection* connection) noexcept nogil:
        cdef Stream* stream = &self.streams[connection.index]
        cdef Py_ssize_t start, length
        cdef ssize_t size
        cdef int64_t room, ring_size = self.message_size * self.window
        if self.fence_size and stream.unsent == 0:
            connection.acknowledged = connection.issued  # they are never acknowledged
        room = self.allowed(connection, connection.issued - connection.acknowledged)
        self.remaining -= room
        stream.unsent += room * self.message_size
        while room > 0:
            self.stamp(connection, connection.ring + connection.issued % self.window * self.message_size)
            connection.issued += 1
            room -= 1
        while stream.unsent:
            start = (connection.issued * self.message_size - stream.unsent) % ring_size
            length = min(stream.unsent, ring_size - start)
            size = self.transmit(connection, connection.ring + start, length)
            if size < 0:
                if size == -EINTR:
                    continue
                if size == -EAGAIN:
                    break
                self.give_up(connection, SOCKET_ERROR)
                return
            self.moved += size
            stream.unsent -= size
        self.end(connection)

    cdef void end(self, Connection* connection) noexcept nogil:
        """Send the fence after the last message, and mark the connection as done when it is answered."""
        cdef Stream* stream = &self.streams[connection.index]
        cdef ssize_t size
        cdef bint all_written = stream.unsent == 0 and self.remaining == 0
        if all_written and stream.fence_unsent:
            size = self.transmit(
                connection, self.fence_data + self.fence_size - stream.fence_unsent, stream.fence_unsent
            )
            if size > 0:
                self.moved += size
                stream.fence_unsent -= size
            elif size < 0 and size != -EAGAIN and size != -EINTR:
                self.give_up(connection, SOCKET_ERROR)
                return
        if all_written and stream.fenced and (self.fence_size or connection.issued == connection.acknowledged):
            self.finish(connection)
        # Messages without acknowledgement flow whenever there is room; others wait for answers.
        if stream.unsent or stream.fence_unsent:
            self.watch(connection, EPOLLIN | EPOLLOUT)
        else:
            self.watch(connection, EPOLLIN)
