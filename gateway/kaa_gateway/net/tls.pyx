"""TLS over TCP: a TCP connection with encryption between its socket and its protocol core.

OpenSSL works on memory, so sockets, back-pressure and bounds are those of plain TCP, a slow handshake delays nobody,
and the reason of a failed handshake is known. Contexts come from `kaa_gateway.net.certificates`. Python's `ssl` shakes
hands; records after that are read and written by `openssl.pyx`, if that has found OpenSSL's functions.

Source: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2).
"""

import ssl
from collections import OrderedDict

from cpython.buffer cimport PyBUF_READ
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t

import structlog

from kaa_gateway.errors import HandshakeError, ProtocolError
from kaa_gateway.net.handshakes import HandshakeLog, failure
from kaa_gateway.wire.certificate import read_client_certificate

from kaa_gateway.net.admission cimport address_text
from kaa_gateway.net.openssl cimport READ_DATA, READ_END, READ_FAILED, ReadResult
from kaa_gateway.net.tcp_connection cimport OUTPUT_KEEP, RECEIVE_SIZE
from kaa_gateway.net.transport cimport ProtocolServer
from kaa_gateway.wire.buffer cimport Slice

log = structlog.get_logger("gateway.transports")

cdef enum:
    HANDSHAKE = 22              # the content type of the first record (RFC 8446 section 5.1)
    HANDSHAKE_WORK = 32 * 1024  # bytes that a step of a handshake counts for


cdef class TlsConnection(TcpConnection):
    """One TLS connection. Its core is made when the handshake is complete."""

    cdef int start(self, const uint8_t* address, Py_ssize_t size) except -1:
        """Prepare the handshake. If too many are under way, the oldest fails."""
        cdef TlsListener listener = self.listener
        self.address = address[:size]
        if len(listener.handshakes) >= listener.handshakes_max:
            (<TlsConnection>next(iter(listener.handshakes))).fail_handshake(
                "tls_handshakes_full", "a newer one took its place"
            )
        listener.handshakes[self] = listener.loop.time()
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = listener.credentials.context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        return 0

    # ------------------------------------------------------------ reading

    cdef int on_bytes(self, Py_ssize_t size) except -1:
        """Decrypt what was read for the core, or continue the handshake. Hot path."""
        if self.core is not None and self.core.input_ended:
            return 0  # after close_notify (RFC 8446 section 6.1)
        if not self.received_any:
            self.received_any = True
            if PyByteArray_AS_STRING(self.listener.receive_storage)[0] != HANDSHAKE:
                return self.fail_handshake("tls_not_tls", "the first byte is not that of a handshake")
        if self.native != NULL:
            return self.decrypt_records(size)
        self.incoming.write(self.listener.receive_view[:size])
        if self.established or self.shake_hands():
            self.decrypt()
        return self.wake() if self.outgoing is not None and self.outgoing.pending else 0

    cdef int shake_hands(self) except -1:
        """Continue the handshake. Return 1 when it is complete and the core has been made."""
        cdef TlsListener listener = self.listener
        listener.work += HANDSHAKE_WORK
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return 0
        except ssl.SSLError as error:
            reason, detail = failure(error)
            self.fail_handshake(reason, detail)
            return 0
        certificate = self.tls.getpeercert(True)
        if certificate is not None:
            try:
                self.certificate = read_client_certificate(
                    certificate, self.tls.context.tenant_of(self.tls, certificate)
                )
            except HandshakeError as error:
                self.fail_handshake(error.reason, error.detail)
                return 0
            except ValueError as error:
                self.fail_handshake("tls_certificate_malformed", str(error))
                return 0
        self.established = True
        del listener.handshakes[self]
        self.core = listener.server.connect(self)
        return 1

    cdef int decrypt_records(self, Py_ssize_t received) except -1:
        """Give the core what can be decrypted of the bytes that were read. Hot path."""
        cdef TlsListener listener = self.listener
        cdef Records records = listener.records
        cdef uint8_t* plain = <uint8_t*>PyByteArray_AS_STRING(listener.plain_storage)
        cdef Py_ssize_t size = 0
        cdef ReadResult result
        cdef bint emptied = False
        records.receive(<const uint8_t*>PyByteArray_AS_STRING(listener.receive_storage), received)
        try:
            while not self.closing and not self.core.input_ended:
                result = records.read(self.native, plain, RECEIVE_SIZE, &size)
                if result == READ_DATA:
                    # What OpenSSL has answered, such as an alert that refuses a new handshake, goes first: the core may
                    # have another connection write, which has the same buffer.
                    self.write_records()
                    if self.native != NULL:
                        self.give_to_core(plain, size)
                    if self.native == NULL:
                        break
                    if records.has_more(self.native):
                        continue
                    emptied = True
                elif result == READ_END:
                    self.on_close_notify()
                elif result == READ_FAILED:
                    self.on_broken(records.failure())
                break
        finally:
            if not emptied:
                records.forget_received()
            self.write_records()
        return 0

    cdef int give_to_core(self, const uint8_t* plain, Py_ssize_t size) except -1:
        """Give the core decrypted bytes. A violation closes the connection. Hot path."""
        try:
            self.core.receive(plain, size)
        except ProtocolError as error:
            self.on_violation(error)
        return 0

    cdef int on_broken(self, str detail) except -1:
        """Close the connection of a peer whose records OpenSSL refuses."""
        self.listener.counters.count("closed", "tls_broken")
        log.info("connection closed: TLS error", reason="tls_broken", detail=detail)
        return self.close()

    cdef int decrypt(self) except -1:
        """Give the core what can be decrypted, by the objects of `ssl`: behind the handshake, in the same read.

        OpenSSL takes one record at a time out of `incoming`. When that is empty, there is no other; reading once more
        would make it say so by an exception, which costs more than the decryption of a short message.
        """
        cdef TlsListener listener = self.listener
        cdef Py_ssize_t size
        while not self.closing and self.core is not None and not self.core.input_ended:
            try:
                size = self.tls.read(RECEIVE_SIZE, listener.plain_view)
            except ssl.SSLWantReadError:
                return 0
            except ssl.SSLZeroReturnError:
                return self.on_close_notify()
            except ssl.SSLError as error:
                return self.on_broken(failure(error).detail)
            if size == 0:
                return self.on_close_notify()
            self.give_to_core(<const uint8_t*>PyByteArray_AS_STRING(listener.plain_storage), size)
            if self.incoming.pending == 0 and self.tls.pending() == 0:
                return 0
        return 0

    cdef int on_close_notify(self) except -1:
        """Handle the end of what the peer sends: close after the answers that are due (RFC 8446 section 6.1)."""
        try:
            self.core.end_of_input()
        except ProtocolError as error:
            self.on_violation(error)
        return 0

    cdef int on_end_of_stream(self) except -1:
        """Handle the peer's FIN, which may come within its handshake."""
        return TcpConnection.on_end_of_stream(self) if self.established or self.lingering else self.abort()

    cdef int add_unread_time(self, double seconds) except -1:
        """Leave the time out of time-outs in which the connection is not read, that of its handshake included."""
        cdef TlsListener listener = self.listener
        if self in listener.handshakes:
            listener.handshakes[self] += seconds
        return TcpConnection.add_unread_time(self, seconds)

    cdef object tls_version(self):
        return self.tls.version() if self.established else None

    # ------------------------------------------------------------ writing

    cdef int flush(self) except -1:
        """Encrypt the core's output, and write it after the records of the handshake. Hot path."""
        if self.fd < 0 or self.lingering:
            return 0
        if self.core is not None:
            self.core.finish_output(self.closing)
        if self.native != NULL:
            self.encrypt_records(self.core.output)
            return self.finish() if self.closing else 0
        try:
            if self.core is not None and self.core.output.size:
                self.encrypt(self.core.output)
            if self.closing and self.established:
                self.tls.unwrap()
        except ssl.SSLError:
            pass  # unwrap wants the peer's close_notify, for which nobody waits; a broken connection was logged before
        self.write_outgoing()
        if self.closing:
            return self.finish()
        return self.adopt() if self.established and self.fd >= 0 else 0

    cdef int adopt(self) except -1:
        """Leave the objects of `ssl`: the handshake is complete, and all that belongs to it is written."""
        cdef TlsListener listener = self.listener
        if self.incoming.pending == 0 and self.outgoing.pending == 0:
            self.native = listener.records.adopt(self.tls)
            if self.native != NULL:
                self.incoming = self.outgoing = None
        return 0

    cdef int encrypt_records(self, Buffer output) except -1:
        """Encrypt all bytes of a buffer, empty it, and write the records. Hot path."""
        cdef Records records = (<TlsListener>self.listener).records
        if output.size:
            records.write(self.native, output.data, output.size)
            output.clear(OUTPUT_KEEP)
        if self.closing:
            records.write_end(self.native)
        return self.write_records()

    cdef int write_records(self) except -1:
        """Write the records that OpenSSL has made. Hot path."""
        cdef Records records = (<TlsListener>self.listener).records
        cdef Slice written = records.take_written()
        return self.write(written.data, written.size) if written.size else 0

    cdef int encrypt(self, Buffer output) except -1:
        """Encrypt all bytes of a buffer by the objects of `ssl`, and empty it."""
        cdef Py_ssize_t at = 0
        while at < output.size:
            at += self.tls.write(PyMemoryView_FromMemory(<char*>output.data + at, output.size - at, PyBUF_READ))
        output.clear(OUTPUT_KEEP)
        return 0

    cdef int write_outgoing(self) except -1:
        """Write the records that the objects of `ssl` have made."""
        cdef bytes encrypted
        if self.outgoing.pending:
            encrypted = self.outgoing.read()
            self.write(<const uint8_t*>encrypted, len(encrypted))
        return 0

    # ------------------------------------------------------------ the end

    cdef int fail_handshake(self, str reason, str detail) except -1:
        """Count and log a failed handshake, and close the connection after the alert, if OpenSSL has made one."""
        cdef TlsListener listener = self.listener
        listener.handshakes.pop(self, None)
        listener.counters.count("closed", reason)
        listener.counters.remember_end("", self.address, reason)
        listener.failures.failed(reason, detail, address_text(self.address), listener.loop.time())
        return self.close()

    cdef int abort(self) except -1:
        """Close the connection now, and release what OpenSSL holds."""
        cdef TlsListener listener = self.listener
        if listener.handshakes.pop(self, None) is not None and not self.closing:
            listener.counters.count("closed", "tls_handshake_aborted")
        TcpConnection.abort(self)
        self.native = NULL
        self.tls = self.incoming = self.outgoing = None
        return 0


cdef class TlsListener(TcpListener):
    """A listening port and its TLS connections.

    When `handshakes_max` are under way, a new one makes the oldest fail. `handshake_timeout` is in seconds.
    """

    def __init__(
        self, loop, ProtocolServer server not None, counters, *, protocol, output_max, connections_max, admission=None,
        credentials, double handshake_timeout, Py_ssize_t handshakes_max,
    ):
        TcpListener.__init__(
            self, loop, server, counters, protocol=protocol, output_max=output_max, connections_max=connections_max,
            admission=admission,
        )
        self.credentials = credentials
        self.failures = HandshakeLog(protocol)
        self.handshake_timeout = handshake_timeout
        self.handshakes_max = handshakes_max
        self.handshakes = OrderedDict()
        self.plain_storage = bytearray(RECEIVE_SIZE)
        self.plain_view = memoryview(self.plain_storage)
        self.records = Records()

    cdef TcpConnection make_connection(self):
        return TlsConnection()

    def handshake_count(self):
        """Return the number of handshakes under way."""
        return len(self.handshakes)

    def check(self):
        """Apply time-outs, those of handshakes first. Call it about once a second."""
        cdef double now = self.loop.time(), begun
        for connection, begun in list(self.handshakes.items()):
            if now - begun >= self.handshake_timeout:
                (<TlsConnection>connection).fail_handshake("tls_handshake_timeout", "it did not end in time")
        return TcpListener.check(self)
