"""CoAP over DTLS 1.2: the datagram socket of udp.pyx with encryption between it and the CoAP core.

A ClientHello is answered with a cookie, and nothing is kept for an address until the cookie comes back from it; then
there is a handshake, bounded in number and time; then a session, which the CoAP core sees as a peer at its address.
A second handshake from an address replaces its session when it has succeeded, and not before.

OpenSSL works on memory; what it sends is cut into datagrams at record boundaries. Contexts are dtls_context.py's.

Source: RFC 6347, whose sections the comments cite; RFC 7252 section 9.
"""

from collections import OrderedDict
from functools import partial

import structlog
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from kaa_gateway.errors import IdentityError, ProtocolError
from kaa_gateway.identity.clients import Client, Presentation
from kaa_gateway.net.certificates import client_certificate
from kaa_gateway.net.dtls_context import DATAGRAM_SIZE as SIZE_OF_A_DATAGRAM
from kaa_gateway.net.dtls_context import failure
from kaa_gateway.net.handshakes import HandshakeLog

from kaa_gateway.counters cimport Counters
from kaa_gateway.net.admission cimport address_text
from kaa_gateway.net.udp cimport address_key

log = structlog.get_logger("gateway.transports")

cdef enum:
    # Content types (section 4.1, RFC 5246 section 6.2.1)
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23
    CLIENT_HELLO = 1
    RECORD_HEADER_SIZE = 13
    RECORD_MAX = 16 * 1024 + 2048    # bytes of a datagram that can be one record
    READ_SIZE = 64 * 1024            # bytes asked of OpenSSL at once
    WAITING_MAX = 8                  # messages of a client that is not admitted yet
    EXPIRY_SCAN = 64                 # sessions looked at for a silent one

cdef double HEARD_RESOLUTION = 1.0   # seconds; the order of sessions is no more exact
cdef Py_ssize_t DATAGRAM_SIZE = SIZE_OF_A_DATAGRAM


cdef class DtlsSession:
    """One client, from a good cookie on."""


cdef class DtlsCore(DatagramCore):
    """Hands what the socket receives to it as records."""

    cdef int receive(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1:
        return (<DtlsSocket>self.socket).on_record(data, size, source)

    cdef int check(self, double now) except -1:
        return (<DtlsSocket>self.socket).on_check(now)


cdef class DtlsSocket(UdpSocket):
    """A bound socket, its DTLS sessions, and the CoAP core that they lead to. Times are in seconds."""

    def __init__(
        self, loop, CoapServer core not None, Counters counters not None, credentials, authenticator, *,
        double handshake_timeout, double session_timeout, Py_ssize_t handshakes_max, Py_ssize_t sessions_max,
    ):
        UdpSocket.__init__(self, loop, DtlsCore(), counters)
        core.socket = self
        core.dtls = self
        self.coap = core
        self.credentials = credentials
        self.authenticator = authenticator
        self.failures = HandshakeLog("coap")
        self.handshake_timeout = handshake_timeout
        self.session_timeout = session_timeout
        self.handshakes_max = handshakes_max
        self.sessions_max = sessions_max
        self.handshakes = OrderedDict()
        self.sessions = OrderedDict()

    def client_at(self, bytes key):
        """The client whose session is at an address."""
        return (<DtlsSession>self.sessions[key]).client

    def end(self, bytes key):
        """The client at an address may not go on."""
        self.close_session(self.sessions[key], True)

    def table_sizes(self):
        """{table: entries}."""
        return {"handshakes": len(self.handshakes), "sessions": len(self.sessions)}

    def stop(self):
        """Say goodbye to all clients, and close."""
        cdef DtlsSession session
        if self.fd >= 0:
            for session in list(self.sessions.values()):
                self.close_session(session, True)
        UdpSocket.stop(self)

    # ------------------------------------------------------------ in

    cdef int on_record(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1:
        """A datagram has come. Hot path."""
        cdef bytes key, datagram
        cdef DtlsSession session
        if size < RECORD_HEADER_SIZE or size > RECORD_MAX:
            return self.counters.count("dropped", "dtls_malformed")
        key = address_key(source)
        datagram = data[:size]
        # In epoch 0 nothing is encrypted yet (section 4.1).
        if data[0] == HANDSHAKE and data[3] == 0 and data[4] == 0 and size > RECORD_HEADER_SIZE \
                and data[RECORD_HEADER_SIZE] == CLIENT_HELLO and key not in self.handshakes:
            return self.listen(datagram, source, key)
        session = self.sessions.get(key)
        if session is None or (data[0] not in (APPLICATION_DATA, ALERT) and key in self.handshakes):
            session = self.handshakes.get(key)
            if session is None:
                return self.counters.count("dropped", "dtls_no_session")
            session.connection.bio_write(datagram)
            return self.shake_hands(session)
        session.connection.bio_write(datagram)
        return self.read(session)

    cdef int listen(self, bytes datagram, const Address* source, bytes key) except -1:
        """A ClientHello of somebody without a handshake: begin one if it has a good cookie, else send a cookie."""
        cdef DtlsSession session = self.spare
        if session is None or session.context is not self.credentials.context:
            session = self.spare = DtlsSession()
            session.context = self.credentials.context
            session.connection = session.context.connection(b"")
        session.address = source[0]
        session.key = key
        session.connection.set_app_data(key)
        session.connection.bio_write(datagram)
        try:
            session.connection.DTLSv1_listen()
        except SSL.WantReadError:
            return self.write_records(session)
        except SSL.Error:
            self.spare = None
            return self.counters.count("dropped", "dtls_malformed")
        self.spare = None
        if len(self.handshakes) >= self.handshakes_max:
            self.fail(next(iter(self.handshakes.values())), "tls_handshakes_full", "a newer one took its place")
        session.begun = session.heard = self.now
        self.handshakes[key] = session
        return self.shake_hands(session)

    cdef int shake_hands(self, DtlsSession session) except -1:
        """Go on with a handshake."""
        session.context.begin()
        try:
            session.connection.do_handshake()
        except SSL.WantReadError:
            self.write_records(session)
            timeout = session.connection.DTLSv1_get_timeout()
            session.retransmit_at = 0 if timeout is None else self.loop.time() + timeout
            return 0
        except SSL.Error as error:
            reason, detail = failure(session.context, error)
            self.write_records(session)
            return self.fail(session, reason, detail)
        self.write_records(session)
        return self.establish(session)

    cdef int establish(self, DtlsSession session) except -1:
        """The handshake has ended well: ask whether the client is admitted."""
        cdef DtlsSession old = self.sessions.get(session.key)
        psk_identity = session.context.psk_identity
        certificate = None
        if psk_identity is None:
            shown = session.connection.get_peer_certificate(as_cryptography=True)
            if shown is not None:
                try:
                    certificate = client_certificate(shown.public_bytes(Encoding.DER))
                except ValueError as error:
                    return self.fail(session, "tls_certificate_malformed", str(error))
        del self.handshakes[session.key]
        if old is not None:
            self.close_session(old, False)  # section 4.2.8
        elif len(self.sessions) >= self.sessions_max:
            self.counters.count("closed", "dtls_sessions_full")
            self.close_session(next(iter(self.sessions.values())), True)
        self.sessions[session.key] = session
        session.waiting = []
        if psk_identity is not None:
            # Whoever has the key is whom it was given to: nobody else is to be asked.
            self.admit(session, Client(f"psk:{psk_identity}"))
        else:
            self.authenticate(session, certificate)
        return self.read(session)

    cdef int authenticate(self, DtlsSession session, certificate) except -1:
        """Ask whose certificate it is; messages wait until that is known."""
        try:
            known = self.authenticator.authenticate(Presentation("coap", certificate=certificate))
        except IdentityError as error:
            return self.turn_away(session, error)
        if isinstance(known, Client):
            return self.admit(session, known)
        known.add_done_callback(partial(self.on_authenticated, session))
        return 0

    def on_authenticated(self, DtlsSession session, future):
        """The client is admitted or refused."""
        try:
            client = future.result()
        except IdentityError as error:
            if not session.ended:
                self.turn_away(session, error)
            return
        if not session.ended:
            self.admit(session, client)

    cdef int turn_away(self, DtlsSession session, error) except -1:
        """The client is not admitted."""
        self.counters.count("closed", error.reason)
        return self.close_session(session, True)

    cdef int admit(self, DtlsSession session, client) except -1:
        session.client = client
        waiting = session.waiting
        session.waiting = None
        for message in waiting:
            self.deliver(session, message)
        return 0

    cdef int read(self, DtlsSession session) except -1:
        """Hand on what can be decrypted. Hot path."""
        cdef bytes message
        if self.now - session.heard > HEARD_RESOLUTION:
            session.heard = self.now
            self.sessions.move_to_end(session.key)
        while not session.ended:
            try:
                message = session.connection.recv(READ_SIZE)
            except SSL.WantReadError:
                # A forged or repeated record leads here too: it is as if it had never come (section 4.1.2.7).
                return self.write_records(session)
            except SSL.Error:
                # The client has said goodbye, or something fatal that is authentic.
                return self.close_session(session, True)
            if session.waiting is None:
                self.deliver(session, message)
            elif len(session.waiting) < WAITING_MAX:
                session.waiting.append(message)
            else:
                self.counters.count("dropped", "dtls_not_admitted")
        return 0

    cdef int deliver(self, DtlsSession session, bytes message) except -1:
        try:
            self.coap.receive(<const uint8_t*>message, len(message), &session.address)
        except ProtocolError as error:
            self.counters.count("dropped", error.reason)
        return 0

    # ------------------------------------------------------------ out

    cdef int send(self, const Address* destination, const uint8_t* data, Py_ssize_t size) except -1:
        """Encrypt a message of the CoAP core. Hot path."""
        cdef DtlsSession session = self.sessions.get(address_key(destination))
        if session is None:
            return self.counters.count("dropped", "dtls_no_session")
        try:
            session.connection.send(data[:size])
        except SSL.Error:
            return self.counters.count("dropped", "dtls_unsendable")
        return self.write_records(session)

    cdef int write_records(self, DtlsSession session) except -1:
        """Send what OpenSSL has written: a flight is cut into datagrams between its records. Hot path."""
        cdef bytes records
        cdef const uint8_t* at
        cdef Py_ssize_t size, begin = 0, end = 0, record
        try:
            records = session.connection.bio_read(READ_SIZE)
        except SSL.WantReadError:
            return 0
        at = <const uint8_t*>records
        size = len(records)
        while end < size:
            record = RECORD_HEADER_SIZE + (at[end + 11] << 8 | at[end + 12])
            if end > begin and end + record - begin > DATAGRAM_SIZE:
                UdpSocket.send(self, &session.address, at + begin, end - begin)
                begin = end
            end += record
        return UdpSocket.send(self, &session.address, at + begin, size - begin)

    # ------------------------------------------------------------ time and the end

    cdef int on_check(self, double now) except -1:
        """What time has passed for."""
        cdef DtlsSession session
        cdef int _
        self.now = now
        for session in list(self.handshakes.values()):
            if now - session.begun >= self.handshake_timeout:
                self.fail(session, "tls_handshake_timeout", "it did not end in time")
            elif session.retransmit_at and now >= session.retransmit_at:
                self.repeat(session, now)
        for _ in range(EXPIRY_SCAN):
            if not self.sessions:
                break
            session = next(iter(self.sessions.values()))
            if now - session.heard < self.session_timeout:
                break
            self.counters.count("closed", "dtls_session_timeout")
            self.close_session(session, True)
        return self.coap.check(now)

    cdef int repeat(self, DtlsSession session, double now) except -1:
        """Send a flight again that was not answered (section 4.2.4)."""
        try:
            session.connection.DTLSv1_handle_timeout()
        except SSL.Error:
            return self.fail(session, "tls_handshake_timeout", "too many retransmissions")
        self.write_records(session)
        timeout = session.connection.DTLSv1_get_timeout()
        session.retransmit_at = 0 if timeout is None else now + timeout
        return 0

    cdef int fail(self, DtlsSession session, str reason, str detail) except -1:
        """A handshake has come to nothing."""
        session.ended = True
        del self.handshakes[session.key]
        self.counters.count("closed", reason)
        self.failures.failed(reason, detail, address_text(address_key(&session.address)), self.loop.time())
        return 0

    cdef int close_session(self, DtlsSession session, bint polite) except -1:
        """Forget a session, and what the CoAP core knows of its peer; `polite` says goodbye first."""
        session.ended = True
        del self.sessions[session.key]
        self.coap.forget(&session.address)
        if polite:
            try:
                session.connection.shutdown()
            except SSL.Error:
                return 0
            self.write_records(session)
        return 0
