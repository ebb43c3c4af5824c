"""DTLS 1.2: the UDP socket of udp.pyx, with encryption between it and a protocol core.

A ClientHello is answered with a cookie, and nothing is kept for an address until the cookie comes back from it. Then
there is a handshake, bounded in number and time, and after it a session, which the core sees as a peer at its address.
A second handshake from an address replaces the session there only when it has succeeded. It replaces a handshake there
when its cookie has come back. A client may resume a session, from any address (RFC 5246 section 7.3).

What lives here: handshakes, sessions and their admission. What does not: OpenSSL's settings and callbacks
(dtls_context.py), and the protocol in the messages. OpenSSL works on memory; what it writes is cut into datagrams at
the borders of records.

Source: RFC 6347, whose sections the comments cite; RFC 6066 section 4; RFC 7252 section 9.
"""

import asyncio
from collections import OrderedDict
from datetime import UTC, datetime
from functools import partial

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from kaa_gateway.errors import HandshakeError, IdentityError, ProtocolError
from kaa_gateway.net.dtls_context import DATAGRAM_SIZE as CONTEXT_DATAGRAM_SIZE
from kaa_gateway.net.dtls_context import failure
from kaa_gateway.net.handshakes import HandshakeLog
from kaa_gateway.wire.certificate import read_client_certificate

from kaa_gateway.counters cimport Counters
from kaa_gateway.net.addresses cimport address_key
from kaa_gateway.net.admission cimport address_text

cdef enum:
    # Content types (section 4.1, RFC 5246 section 6.2.1)
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23
    CLIENT_HELLO = 1
    CLIENT_KEY_EXCHANGE = 16
    MAX_FRAGMENT_LENGTH = 1              # the extension (RFC 6066 section 4)
    # Sizes in bytes
    RECORD_HEADER_SIZE = 13
    MESSAGE_HEADER_SIZE = 12             # of a handshake message
    VERSION_SIZE = 2
    RANDOM_SIZE = 32
    FRAGMENT_SIZE_MAX = 16 * 1024        # of a record, unless the client asks for less
    RECORD_SIZE_MAX = 16 * 1024 + 2048   # of a datagram that can be one record
    READ_SIZE = 64 * 1024                # asked of OpenSSL at once
    # Numbers
    WAITING_MAX = 8                      # messages of a client that is not admitted yet
    EXPIRY_SCAN = 64                     # sessions looked at for a silent one

cdef double LAST_RECEIVED_RESOLUTION = 1.0   # seconds; the order of sessions is no more exact
cdef Py_ssize_t DATAGRAM_SIZE = CONTEXT_DATAGRAM_SIZE


cdef inline Py_ssize_t get_16(const uint8_t* at) noexcept:
    return at[0] << 8 | at[1]


cdef bint is_client_hello(const uint8_t* data, Py_ssize_t size) noexcept:
    """Return whether a datagram begins with an unencrypted ClientHello (sections 4.1 and 4.2.2)."""
    return data[0] == HANDSHAKE and get_16(data + 3) == 0 \
        and size >= RECORD_HEADER_SIZE + MESSAGE_HEADER_SIZE + VERSION_SIZE + RANDOM_SIZE \
        and data[RECORD_HEADER_SIZE] == CLIENT_HELLO


cdef bytes random_of(const uint8_t* hello):
    """Return the random of a ClientHello, which tells one beginning of a client from another."""
    hello += RECORD_HEADER_SIZE + MESSAGE_HEADER_SIZE + VERSION_SIZE
    return hello[:RANDOM_SIZE]


cdef bint is_first(const uint8_t* hello) noexcept:
    """Return whether a ClientHello is the first message of its client, and so without a cookie (section 4.2.2)."""
    return get_16(hello + RECORD_HEADER_SIZE + 4) == 0


cdef Py_ssize_t fragment_size_of(const uint8_t* hello, Py_ssize_t size) noexcept:
    """Return the largest record that a ClientHello allows; any bytes are safe (RFC 6066 section 4)."""
    cdef Py_ssize_t at = RECORD_HEADER_SIZE + MESSAGE_HEADER_SIZE + VERSION_SIZE + RANDOM_SIZE, length
    cdef int field
    for field in range(4):  # session ID, cookie, cipher suites, compression methods
        if at + 2 > size:
            return FRAGMENT_SIZE_MAX
        at += 2 + get_16(hello + at) if field == 2 else 1 + hello[at]
    at += 2  # the length of all extensions
    while at + 4 <= size:
        length = get_16(hello + at + 2)
        if get_16(hello + at) == MAX_FRAGMENT_LENGTH and length == 1 and at + 5 <= size \
                and 1 <= hello[at + 4] <= 4:
            return 256 << hello[at + 4]
        at += 4 + length
    return FRAGMENT_SIZE_MAX


cdef bytes identity_in(const uint8_t* datagram, Py_ssize_t size):
    """Return the identity of a pre-shared key in a datagram, empty if there is none; any bytes are safe.

    It stands first in ClientKeyExchange, if the cipher suite is one with pre-shared keys (RFC 4279 sections 2 and 3).
    """
    cdef const uint8_t* message
    cdef Py_ssize_t at = 0, end, length
    while at + RECORD_HEADER_SIZE <= size:
        end = min(at + RECORD_HEADER_SIZE + get_16(datagram + at + 11), size)
        if datagram[at] == HANDSHAKE and get_16(datagram + at + 3) == 0:
            at += RECORD_HEADER_SIZE
            while at + MESSAGE_HEADER_SIZE + 2 <= end:
                message = datagram + at
                length = message[1] << 16 | get_16(message + 2)
                at += MESSAGE_HEADER_SIZE
                if message[0] == CLIENT_KEY_EXCHANGE and at + 2 + get_16(datagram + at) <= end:
                    return datagram[at + 2:at + 2 + get_16(datagram + at)]
                at += length
        at = end
    return b""


cdef class DtlsSession:
    """A client, from its good cookie until its session ends."""


cdef class DtlsSocket(UdpSocket):
    """A bound socket, its DTLS sessions, and the core that receives their messages. Times are in seconds.

    `authenticate` is called with the PSK identity or the certificate of a client, each None if it has none. It returns
    the client, or a future of it, or raises IdentityError. `protocol` names the core in the log.
    """

    def __init__(
        self, loop, DatagramCore core not None, Counters counters not None, credentials, authenticate, *,
        str protocol, double handshake_timeout, double session_timeout, Py_ssize_t handshakes_max,
        Py_ssize_t sessions_max,
    ):
        UdpSocket.__init__(self, loop, core, counters)
        self.credentials = credentials
        self.authenticate = authenticate
        self.failures = HandshakeLog(protocol)
        self.handshake_timeout = handshake_timeout
        self.session_timeout = session_timeout
        self.handshakes_max = handshakes_max
        self.sessions_max = sessions_max
        self.handshakes = OrderedDict()
        self.sessions = OrderedDict()

    def table_sizes(self):
        """Return {table: entries}."""
        return {"handshakes": len(self.handshakes), "sessions": len(self.sessions)}

    def stop(self):
        """Say goodbye to all clients, and close."""
        cdef DtlsSession session
        if self.fd >= 0:
            for session in list(self.sessions.values()):
                self.close_session(session, True)
        UdpSocket.stop(self)

    cdef object client_of(self, const Address* address):
        return (<DtlsSession>self.sessions[address_key(address)]).client

    cdef Py_ssize_t message_size_max(self, const Address* address) except -1:
        return (<DtlsSession>self.sessions[address_key(address)]).message_size

    cdef int disconnect(self, const Address* address) except -1:
        cdef DtlsSession session = self.sessions.get(address_key(address))
        return 0 if session is None else self.close_session(session, True)

    # ------------------------------------------------------------ in

    cdef int on_datagram(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1:
        """Handle a datagram, which is one or more records. Hot path."""
        cdef bytes key, datagram
        cdef DtlsSession session
        if size < RECORD_HEADER_SIZE or size > RECORD_SIZE_MAX:
            return self.counters.count("dropped", "dtls_malformed")
        key = address_key(source)
        datagram = data[:size]
        if is_client_hello(data, size):
            session = self.handshakes.get(key)
            # A ClientHello with a cookie and the same random is sent again, and OpenSSL's business.
            if session is None or is_first(data) or session.client_random != random_of(data):
                return self.on_client_hello(datagram, source, key)
        session = self.sessions.get(key)
        if session is None or (data[0] not in (APPLICATION_DATA, ALERT) and key in self.handshakes):
            session = self.handshakes.get(key)
            if session is None:
                return self.counters.count("dropped", "dtls_no_session")
            session.connection.bio_write(datagram)
            return self.continue_handshake(session, datagram)
        session.connection.bio_write(datagram)
        return self.read_messages(session)

    cdef int on_client_hello(self, bytes datagram, const Address* source, bytes key) except -1:
        """Begin a handshake for a ClientHello with a good cookie; answer any other with a cookie (section 4.2.1).

        The handshake of a client that has lost its state ends then (section 4.2.8).
        """
        cdef DtlsSession session = self.listening
        if session is None or session.context is not self.credentials.context:
            session = self.listening = DtlsSession()
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
            self.listening = None
            return self.counters.count("dropped", "dtls_malformed")
        self.listening = None
        session.client_random = random_of(datagram)
        session.message_size = fragment_size_of(datagram, len(datagram))
        if key in self.handshakes:
            self.fail_handshake(self.handshakes[key], "dtls_handshake_restarted", "the client began anew")
        elif len(self.handshakes) >= self.handshakes_max:
            self.fail_handshake(
                next(iter(self.handshakes.values())), "tls_handshakes_full", "a newer one took its place"
            )
        session.begun = session.last_received = self.now
        session.sent_identity = b""
        self.handshakes[key] = session
        return self.continue_handshake(session, datagram)

    cdef int continue_handshake(self, DtlsSession session, bytes datagram) except -1:
        """Let OpenSSL go on with a handshake, after it has been given a datagram."""
        session.sent_identity = identity_in(<const uint8_t*>datagram, len(datagram)) or session.sent_identity
        session.context.begin(session.sent_identity)
        try:
            session.connection.do_handshake()
        except SSL.WantReadError:
            session.psk_identity = session.context.psk_identity or session.psk_identity
            self.write_records(session)
            timeout = session.connection.DTLSv1_get_timeout()
            session.retransmit_at = 0 if timeout is None else self.loop.time() + timeout
            return 0
        except SSL.Error as error:
            reason, detail = failure(session.context, error)
            self.write_records(session)
            return self.fail_handshake(session, reason, detail)
        self.write_records(session)
        return self.complete_handshake(session)

    cdef int complete_handshake(self, DtlsSession session) except -1:
        """Make a session of a successful handshake, and ask whether its client is admitted."""
        cdef DtlsSession old = self.sessions.get(session.key)
        psk_identity = session.context.identity_of(
            session.connection, session.context.psk_identity or session.psk_identity
        )
        certificate = None
        if psk_identity is None:
            shown = session.connection.get_peer_certificate(as_cryptography=True)
            if shown is not None:
                if shown.not_valid_after_utc < datetime.now(UTC):
                    # It was valid when the session began that is resumed now.
                    return self.fail_handshake(session, "tls_certificate_expired", "certificate has expired")
                try:
                    der = shown.public_bytes(Encoding.DER)
                    certificate = read_client_certificate(der, session.context.tenant_of(session.connection, der))
                except HandshakeError as error:
                    return self.fail_handshake(session, error.reason, error.detail)
                except ValueError as error:
                    return self.fail_handshake(session, "tls_certificate_malformed", str(error))
        del self.handshakes[session.key]
        if old is not None:
            self.close_session(old, False)  # section 4.2.8
        elif len(self.sessions) >= self.sessions_max:
            self.counters.count("closed", "dtls_sessions_full")
            self.close_session(next(iter(self.sessions.values())), True)
        self.sessions[session.key] = session
        session.waiting = []
        try:
            client = self.authenticate(psk_identity, certificate)
        except IdentityError as error:
            return self.refuse(session, error)
        if isinstance(client, asyncio.Future):
            client.add_done_callback(partial(self.on_authenticated, session))
        else:
            self.admit(session, client)
        return self.read_messages(session)

    def on_authenticated(self, DtlsSession session, future):
        """Admit or refuse the client of a session, as the future says."""
        try:
            client = future.result()
        except IdentityError as error:
            if not session.ended:
                self.refuse(session, error)
            return
        if not session.ended:
            self.admit(session, client)

    cdef int admit(self, DtlsSession session, client) except -1:
        """Hand on the messages that have waited for the client's admission."""
        session.client = client
        waiting = session.waiting
        session.waiting = None
        for message in waiting:
            self.deliver(session, message)
        return 0

    cdef int refuse(self, DtlsSession session, error) except -1:
        """End the session of a client that is not admitted."""
        self.counters.count("closed", error.reason)
        return self.close_session(session, True)

    cdef int read_messages(self, DtlsSession session) except -1:
        """Hand on what can be decrypted. Hot path."""
        cdef bytes message
        if self.now - session.last_received > LAST_RECEIVED_RESOLUTION:
            session.last_received = self.now
            self.sessions.move_to_end(session.key)
        while not session.ended:
            try:
                message = session.connection.recv(READ_SIZE)
            except SSL.WantReadError:
                # A forged or repeated record leads here too, and has no effect (section 4.1.2.7).
                return self.write_records(session)
            except SSL.Error:
                # The client has closed the session, or sent something fatal that is authentic.
                return self.close_session(session, True)
            if session.waiting is None:
                self.deliver(session, message)
            elif len(session.waiting) < WAITING_MAX:
                session.waiting.append(message)
            else:
                self.counters.count("dropped", "dtls_not_admitted")
        return 0

    cdef int deliver(self, DtlsSession session, bytes message) except -1:
        """Hand a message to the core. Hot path."""
        try:
            self.core.receive(<const uint8_t*>message, len(message), &session.address)
        except ProtocolError as error:
            self.counters.count("dropped", error.reason)
        return 0

    # ------------------------------------------------------------ out

    cdef int send(self, const Address* destination, const uint8_t* data, Py_ssize_t size) except -1:
        """Encrypt a message of the core. Hot path."""
        cdef DtlsSession session = self.sessions.get(address_key(destination))
        if session is None:
            return self.counters.count("dropped", "dtls_no_session")
        try:
            session.connection.send(data[:size])
        except SSL.Error:
            return self.counters.count("dropped", "dtls_unsendable")
        return self.write_records(session)

    cdef int write_records(self, DtlsSession session) except -1:
        """Send what OpenSSL has written, a flight in several datagrams if it needs them. Hot path."""
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

    # ------------------------------------------------------------ time, and the end

    def check(self):
        """Act on time that has passed: retransmissions, overdue handshakes, silent sessions, and the core's."""
        cdef double now
        if self.fd < 0:
            return False
        now = self.now = self.loop.time()
        self.expire(now)
        return self.core.check(now)

    cdef int expire(self, double now) except -1:
        """End handshakes that take too long and sessions that have been silent too long."""
        cdef DtlsSession session
        cdef int _
        for session in list(self.handshakes.values()):
            if now - session.begun >= self.handshake_timeout:
                self.fail_handshake(session, "tls_handshake_timeout", "it did not end in time")
            elif session.retransmit_at and now >= session.retransmit_at:
                self.retransmit(session, now)
        for _ in range(EXPIRY_SCAN):
            if not self.sessions:
                break
            session = next(iter(self.sessions.values()))
            if now - session.last_received < self.session_timeout:
                break
            self.counters.count("closed", "dtls_session_timeout")
            self.close_session(session, True)
        return 0

    cdef int retransmit(self, DtlsSession session, double now) except -1:
        """Send a flight again that was not answered (section 4.2.4)."""
        try:
            session.connection.DTLSv1_handle_timeout()
        except SSL.Error:
            return self.fail_handshake(session, "tls_handshake_timeout", "too many retransmissions")
        self.write_records(session)
        timeout = session.connection.DTLSv1_get_timeout()
        session.retransmit_at = 0 if timeout is None else now + timeout
        return 0

    cdef int fail_handshake(self, DtlsSession session, str reason, str detail) except -1:
        """Forget a failed handshake, and log it."""
        session.ended = True
        del self.handshakes[session.key]
        self.counters.count("closed", reason)
        self.failures.failed(reason, detail, address_text(self.client_address(&session.address)), self.loop.time())
        return 0

    cdef int close_session(self, DtlsSession session, bint notify_client) except -1:
        """Forget a session, and let the core forget its peer. `notify_client` sends close_notify."""
        session.ended = True
        del self.sessions[session.key]
        self.core.forget(&session.address)
        if not notify_client:
            # OpenSSL lets only sessions be resumed whose connections were closed.
            session.connection.set_shutdown(SSL.SENT_SHUTDOWN)
        else:
            try:
                session.connection.shutdown()
            except SSL.Error:
                return 0
            self.write_records(session)
        return 0
