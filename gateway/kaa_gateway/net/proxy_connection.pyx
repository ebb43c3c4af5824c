"""A connection from a trusted proxy until its header of the PROXY protocol is complete.

It then hands its socket over to a connection of the listener, which knows nothing of it. So the header costs later
messages nothing. A proxy that connects and closes, as health checks do, is neither logged nor counted as a failure.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport uint8_t
from libc.string cimport memmove

import structlog

from kaa_gateway.wire.proxy_header import FORMAT_REASONS

from kaa_gateway.net.admission cimport address_text
from kaa_gateway.net.proxy cimport proxied_of
from kaa_gateway.net.tcp_listener cimport TcpListener
from kaa_gateway.wire.proxy_header cimport (
    PROXY_HEADER_MAX, PROXY_INCOMPLETE, PROXY_WELL_FORMED, ProxyFormat, ProxyHeader, read_proxy_header,
)

log = structlog.get_logger("gateway.transports")


cdef class ProxyConnection(TcpConnection):
    """One connection whose client is not known yet."""

    cdef bint admit(self, const uint8_t* address, Py_ssize_t size) except -1:
        """Admit it: the limits of sources are for clients, not for proxies."""
        return True

    cdef int charge(self, Py_ssize_t size) except -1:
        return 0

    cdef int start(self, const uint8_t* address, Py_ssize_t size) except -1:
        """Wait for the header."""
        self.address = address[:size]
        self.header = Buffer()
        return self.listener.add_header(self)

    cdef int on_bytes(self, Py_ssize_t size) except -1:
        """Read the header; what stands behind it is for the connection that follows."""
        cdef uint8_t* received = <uint8_t*>PyByteArray_AS_STRING(self.listener.receive_storage)
        cdef Py_ssize_t before = self.header.size, rest
        cdef ProxyHeader header
        cdef ProxyFormat form
        self.header.append(received, min(size, PROXY_HEADER_MAX - before))
        form = read_proxy_header(self.header.data, self.header.size, False, &header)
        if form == PROXY_INCOMPLETE:
            return 0
        if form != PROXY_WELL_FORMED:
            return self.fail(FORMAT_REASONS[<int>form])
        rest = size - (header.size - before)
        if rest:
            memmove(received, received + size - rest, <size_t>rest)
        return self.hand_over(&header, rest)

    cdef int hand_over(self, const ProxyHeader* header, Py_ssize_t rest) except -1:
        """Let a connection of the listener have the socket, and the bytes that were read beyond the header."""
        cdef TcpListener listener = self.listener
        cdef TcpConnection connection
        cdef bytes address = self.address
        if header.address_size:
            address = header.address[:header.address_size]
        connection = listener.make_connection()
        connection.listener = listener
        connection.fd = -1
        if listener.admission is not None and not connection.admit(<const uint8_t*>address, len(address)):
            return self.abort()
        connection.address = address
        connection.proxied = proxied_of(header)
        connection.fd = self.fd
        connection.interest = self.interest
        listener.connections[self.fd] = connection
        listener.remove_header(self)
        self.fd = -1
        try:
            connection.start(<const uint8_t*>address, len(address))
            if rest:
                connection.on_bytes(rest)
                if listener.admission is not None:
                    connection.charge(rest)
            connection.set_interest()
        except Exception as error:
            listener.on_fault(connection, error)
        return 0

    cdef int fail(self, str reason) except -1:
        """Close a connection whose header cannot be used."""
        self.listener.counters.count("closed", reason)
        log.info("connection of a proxy closed", reason=reason, peer=address_text(self.address))
        return self.abort()

    cdef int on_end_of_stream(self) except -1:
        return self.abort()

    cdef int close(self) except -1:
        return self.abort()

    cdef int abort(self) except -1:
        self.listener.remove_header(self)
        return TcpConnection.abort(self)
