"""TLS over TCP: the adapter of tcp.pyx with encryption between the socket and the core.

OpenSSL works on memory (ssl.MemoryBIO), so that sockets, back-pressure and bounds are those of plain TCP, a stalled
handshake holds up nobody, and the reason of a failed one is known. Contexts come from certificates.py.

Source: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2).
"""

import ssl

from cpython.buffer cimport PyBUF_READ
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t

import structlog

from gateway.errors import ProtocolError
from gateway.transports.certificates import client_certificate
from gateway.transports.handshakes import HandshakeLog, failure

from gateway.transports.tcp cimport OUTPUT_KEEP, RECEIVE_SIZE

log = structlog.get_logger("gateway.transports")

cdef enum:
    HANDSHAKE = 22  # the content type of the first record (RFC 8446 section 5.1)


cdef class TlsConnection(TcpConnection):
    """One connection; its core begins when the handshake has ended."""

    def connection_made(self, transport):
        """Make ready for a handshake, unless there are too many connections."""
        cdef TlsListener listener = self.listener
        if not self.take(transport):
            return
        if len(listener.handshakes) >= listener.handshakes_max:
            (<TlsConnection>next(iter(listener.handshakes))).fail("tls_handshakes_full", "a newer one took its place")
        listener.handshakes[self] = listener.loop.time()
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = listener.credentials.context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def buffer_updated(self, Py_ssize_t size):
        """Hot path."""
        if self.closing or self.tls is None:
            return
        if not self.spoke:
            self.spoke = True
            if PyByteArray_AS_STRING(self.listener.receive_storage)[0] != HANDSHAKE:
                self.fail("tls_not_tls", "the first byte is not that of a handshake")
                return
        self.incoming.write(self.listener.receive_view[:size])
        if self.established or self.shake_hands():
            self.read()
        if self.outgoing.pending:
            self.wake()
        if self.listener.admission is not None:
            self.charge(size)

    cdef int shake_hands(self) except -1:
        """Go on with the handshake; 1 if that was its end, and the core has begun."""
        cdef TlsListener listener = self.listener
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return 0
        except ssl.SSLError as error:
            reason, detail = failure(error)
            self.fail(reason, detail)
            return 0
        certificate = self.tls.getpeercert(True)
        if certificate is not None:
            try:
                self.certificate = client_certificate(certificate)
            except ValueError as error:
                self.fail("tls_certificate_malformed", str(error))
                return 0
        self.established = True
        del listener.handshakes[self]
        self.stream = listener.make_stream(self)
        return 1

    cdef int read(self) except -1:
        """Hand the core what can be decrypted. Hot path."""
        cdef TlsListener listener = self.listener
        cdef Py_ssize_t size
        while not self.closing and self.stream is not None:
            try:
                size = self.tls.read(RECEIVE_SIZE, listener.plain_view)
            except ssl.SSLWantReadError:
                return 0
            except ssl.SSLZeroReturnError:
                return self.close()
            except ssl.SSLError as error:
                reason, detail = failure(error)
                listener.counters.count("closed", "tls_broken")
                log.info("connection closed: TLS error", reason=reason, detail=detail)
                return self.close()
            if size == 0:
                return self.close()
            try:
                self.stream.receive(<const uint8_t*>PyByteArray_AS_STRING(listener.plain_storage), size)
            except ProtocolError as error:
                self.violated(error)
        return 0

    cdef int fail(self, str reason, str detail) except -1:
        """The handshake has come to nothing: say why, and end the connection after the alert, if there is one."""
        cdef TlsListener listener = self.listener
        listener.handshakes.pop(self, None)
        listener.counters.count("closed", reason)
        peer = self.transport.get_extra_info("peername") or ("", 0)
        address = f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
        listener.failures.failed(reason, detail, address, listener.loop.time())
        return self.close()

    def connection_lost(self, error):
        """The connection is gone, perhaps within its handshake."""
        cdef TlsListener listener = self.listener
        if listener.handshakes.pop(self, None) is not None and not self.closing:
            listener.counters.count("closed", "tls_handshake_aborted")
        TcpConnection.connection_lost(self, error)
        self.tls = self.incoming = self.outgoing = None

    cdef int flush(self) except -1:
        """Encrypt the core's output, and write it with what the handshake has to say."""
        self.is_awake = False
        if self.transport is None or self.tls is None:
            return 0
        try:
            if self.stream is not None:
                self.stream.finish_output(self.closing)
                if self.stream.output.size:
                    self.encrypt(self.stream.output)
            if self.closing and self.established:
                self.tls.unwrap()
        except ssl.SSLError:
            pass  # unwrap wants the peer's close_notify, which nobody waits for; a broken connection has said so
        self.write_outgoing()
        if self.closing and self.transport is not None:
            self.transport.close()
        return 0

    cdef int encrypt(self, Buffer output) except -1:
        cdef Py_ssize_t at = 0
        while at < output.size:
            at += self.tls.write(PyMemoryView_FromMemory(<char*>output.data + at, output.size - at, PyBUF_READ))
        output.clear(OUTPUT_KEEP)
        return 0

    cdef int write_outgoing(self) except -1:
        cdef bytes encrypted
        if self.outgoing.pending:
            encrypted = self.outgoing.read()
            self.write(<const uint8_t*>encrypted, len(encrypted))
        return 0


cdef class TlsListener(TcpListener):
    """A listening port and its connections; at `handshakes_max` unfinished handshakes, the oldest makes room."""

    def __init__(
        self, loop, make_stream, counters, protocol, output_max, connections_max, credentials,
        double handshake_timeout, Py_ssize_t handshakes_max,
    ):
        TcpListener.__init__(self, loop, make_stream, counters, protocol, output_max, connections_max)
        self.credentials = credentials
        self.failures = HandshakeLog(protocol)
        self.handshake_timeout = handshake_timeout
        self.handshakes_max = handshakes_max
        self.handshakes = {}
        self.plain_storage = bytearray(RECEIVE_SIZE)
        self.plain_view = memoryview(self.plain_storage)

    def make_connection(self):
        """The protocol of a new connection."""
        return TlsConnection(self)

    def handshake_count(self):
        """Handshakes under way."""
        return len(self.handshakes)

    def check(self):
        """Call about once a second: ends handshakes that take too long, and lets cores act on time."""
        cdef double now = self.loop.time(), begun
        for connection, begun in list(self.handshakes.items()):
            if now - begun < self.handshake_timeout:
                break
            (<TlsConnection>connection).fail("tls_handshake_timeout", "it did not end in time")
        TcpListener.check(self)
