"""A connection to a NATS server: the protocol of its transport, and the steps of its handshake.

What is received is handled by link.pyx; the connector goes through the handshake (connector.py).

Source: NATS documentation, "Client Protocol" (INFO, CONNECT, PING).
"""

import structlog

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport uint8_t

from kaa_gateway.errors import ProtocolError

from kaa_gateway.bus.transport cimport AsyncioTransport

log = structlog.get_logger("gateway.bus")


cdef class Connection:
    """What gets the bytes of one transport: a BufferedProtocol for asyncio's, or called by a SocketTransport.

    It is ignored when it is not the link's connection any more: an aborted transport of asyncio reports its end a
    moment later, when the next connection may already be under way.
    """

    def __init__(self, Link link):
        self.link = link

    cdef bint is_current(self):
        """Return whether this is the link's connection."""
        return self.link.connection is self and not self.ended

    def connection_made(self, transport):
        """Give the transport to the link, unless this is no longer the link's connection."""
        if self.is_current():
            self.link.transport = AsyncioTransport(transport)
        else:
            transport.abort()

    def get_buffer(self, Py_ssize_t size_hint):
        """Return the worker's receive buffer for NATS, which buffer_updated consumes before it returns."""
        return self.link.receive_view

    def buffer_updated(self, Py_ssize_t size):
        """Handle what arrived, then write what is due. Hot path."""
        cdef bint begun = self.link.tick.begin()
        try:
            self.on_bytes(size)
        finally:
            if begun:
                self.link.tick.end()

    cdef int on_bytes(self, Py_ssize_t size) except -1:
        """Parse what is in the receive buffer; a violation by the server ends the connection. Hot path."""
        if not self.is_current():
            return 0
        try:
            self.link.parse(<const uint8_t*>PyByteArray_AS_STRING(self.link.receive_storage), size)
        except ProtocolError as error:
            log.error("NATS server broke the protocol", reason=error.reason)
            self.link.abort(str(error))
        return 0

    def eof_received(self):
        """Close the connection, as the server has."""
        return False

    def connection_lost(self, error):
        """Tell the link that the connection is gone."""
        if self.is_current():
            self.link.detach(str(error) if error else "closed by the server")

    def pause_writing(self):
        """Do nothing: the backlog counts unwritten bytes too, and pauses the readers at its bound."""

    def resume_writing(self):
        """Do nothing, as in pause_writing."""

    # ------------------------------------------------------------ handshake

    def expect_info(self):
        """Return a future of the first INFO, as a dict; BusError if the server refuses."""
        return self.expect()

    def expect_pong(self):
        """Return a future of the PONG that answers CONNECT and PING; BusError if the server refuses."""
        self.expects_pong = True
        return self.expect()

    cdef object expect(self):
        self.waiter = self.link.loop.create_future()
        if self.failure is not None:
            self.fail_step(self.failure)
        return self.waiter

    cdef int receive_info(self, dict info) except -1:
        """Keep an INFO, which may come at any time; its fields replace those of the one before."""
        self.info = info if self.info is None else {**self.info, **info}
        return 0 if self.expects_pong else self.resolve(info)

    cdef int receive_pong(self) except -1:
        """Complete the handshake, if this PONG can answer CONNECT."""
        return self.resolve(True) if self.expects_pong else 0

    cdef int resolve(self, value) except -1:
        """Complete the step under way, if any."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(value)
        return 0

    cdef int fail(self, error) except -1:
        """Fail the step under way, or else the next. The first reason counts."""
        if self.failure is None:
            self.failure = error
            if self.waiter is not None and not self.waiter.done():
                self.fail_step(error)
        return 0

    cdef int fail_step(self, error) except -1:
        """Fail the future of the step under way."""
        self.waiter.set_exception(error)
        self.waiter.exception()  # seen: asyncio complains of failures that nobody has looked at
        return 0
