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

from kaa_gateway.errors import ProtocolError
from kaa_gateway.net.certificates import client_certificate
from kaa_gateway.net.handshakes import HandshakeLog, failure

from kaa_gateway.net.admission cimport address_text
from kaa_gateway.net.tcp cimport OUTPUT_KEEP, RECEIVE_SIZE

log = structlog.get_logger("gateway.transports")

cdef enum:
    HANDSHAKE = 22  # the content type of the first record (RFC 8446 section 5.1)


cdef class TlsConnection(TcpConnection):
    """One connection; its core begins when the handshake has ended."""

    cdef int begin(self, bytes address) except -1:
        """Make ready for a handshake."""
        cdef TlsListener listener = self.listener
        self.address = address
        if len(listener.handshakes) >= listener.handshakes_max:
            (<TlsConnection>next(iter(listener.handshakes))).fail("tls_handshakes_full", "a newer one took its place")
        listener.handshakes[self] = listener.loop.time()
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = listener.credentials.context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        return 0

    cdef int received(self, Py_ssize_t size) except -1:
        """Hot path."""
        if not self.spoke:
            self.spoke = True
            if PyByteArray_AS_STRING(self.listener.receive_storage)[0] != HANDSHAKE:
                return self.fail("tls_not_tls", "the first byte is not that of a handshake")
        self.incoming.write(self.listener.receive_view[:size])
        if self.established or self.shake_hands():
            self.decrypt()
        return self.wake() if self.outgoing.pending else 0

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
        self.core = listener.make_core(self)
        return 1

    cdef int decrypt(self) except -1:
        """Hand the core what can be decrypted. Hot path."""
        cdef TlsListener listener = self.listener
        cdef Py_ssize_t size
        while not self.closing and self.core is not None:
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
                self.core.receive(<const uint8_t*>PyByteArray_AS_STRING(listener.plain_storage), size)
            except ProtocolError as error:
                self.violated(error)
        return 0

    cdef int fail(self, str reason, str detail) except -1:
        """The handshake has come to nothing: say why, and end the connection after the alert, if there is one."""
        cdef TlsListener listener = self.listener
        listener.handshakes.pop(self, None)
        listener.counters.count("closed", reason)
        listener.failures.failed(reason, detail, address_text(self.address), listener.loop.time())
        return self.close()

    cdef int ended(self) except -1:
        """The peer has ended, perhaps within its handshake."""
        return TcpConnection.ended(self) if self.established else self.abort()

    cdef int abort(self) except -1:
        cdef TlsListener listener = self.listener
        if listener.handshakes.pop(self, None) is not None and not self.closing:
            listener.counters.count("closed", "tls_handshake_aborted")
        TcpConnection.abort(self)
        self.tls = self.incoming = self.outgoing = None
        return 0

    cdef int flush(self) except -1:
        """Encrypt the core's output, and write it with what the handshake has to say."""
        self.is_awake = False
        if self.fd < 0:
            return 0
        try:
            if self.core is not None:
                self.core.finish_output(self.closing)
                if self.core.output.size:
                    self.encrypt(self.core.output)
            if self.closing and self.established:
                self.tls.unwrap()
        except ssl.SSLError:
            pass  # unwrap wants the peer's close_notify, which nobody waits for; a broken connection has said so
        self.write_outgoing()
        return self.finish() if self.closing else 0

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
        self, loop, make_core, counters, protocol, output_max, connections_max, credentials,
        double handshake_timeout, Py_ssize_t handshakes_max,
    ):
        TcpListener.__init__(self, loop, make_core, counters, protocol, output_max, connections_max)
        self.credentials = credentials
        self.failures = HandshakeLog(protocol)
        self.handshake_timeout = handshake_timeout
        self.handshakes_max = handshakes_max
        self.handshakes = {}
        self.plain_storage = bytearray(RECEIVE_SIZE)
        self.plain_view = memoryview(self.plain_storage)

    cdef TcpConnection make_connection(self):
        return TlsConnection()

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
