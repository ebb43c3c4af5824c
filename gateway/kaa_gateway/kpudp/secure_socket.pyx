"""KP/UDP version 2: the UDP socket of net/udp.pyx, with encryption between it and the KP/UDP server.

A HELLO is answered with a cookie, and nothing is kept for it. An OPEN that brings the cookie back, sealed with the key
of its identity, begins a session. The server sees the session as a peer at an address of its own, which stays the same
when the device moves, and as another peer in each generation of keys.

What lives here: the sessions of a worker, and what a datagram means for them. What does not: one session
(secure_session.pyx), the derivation of keys (key_schedule.py), and the frames (server.pyx).

Source: docs/kp-over-udp-secure.md.
"""

import hashlib
import hmac
import secrets
from collections import OrderedDict

from libc.stdint cimport int64_t
from libc.string cimport memcpy

from kaa_gateway.identity.clients import Client
from kaa_gateway.kpudp.key_schedule import generation_keys, session_secret
from kaa_gateway.net.dtls_context import shown_identity
from kaa_gateway.net.handshakes import HandshakeLog
from kaa_gateway.wire import aead
from kaa_gateway.wire.kpudp_secure import SECURE_REASONS

from kaa_gateway.counters cimport Counters
from kaa_gateway.kpudp.secure_session cimport CHECK_DUE, DirectionKeys
from kaa_gateway.net.addresses cimport address_key
from kaa_gateway.net.admission cimport address_text
from kaa_gateway.net.udp cimport DatagramCore
from kaa_gateway.wire.aead cimport NONCE_SIZE, TAG_SIZE, seal
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.kpudp cimport HEADER_SIZE, put_header
from kaa_gateway.wire.kpudp_secure cimport (
    CHALLENGE_SIZE, CLIENT_RANDOM_SIZE, COOKIE_SIZE, HELLO, OPEN, PATH_CHECK, PATH_DATA_SIZE, PATH_PROOF, RESUME,
    RESUME_RANDOM_SIZE, SEALED, SEALED_HEADER_SIZE, SECURE_DATAGRAM_SIZE_MAX, SECURE_OVERHEAD, SECURE_WELL_FORMED,
    SUITE, UNKNOWN_SESSION, UNKNOWN_SESSION_SIZE, SecureFormat, make_nonce, put_challenge, put_sealed_header,
    read_secure,
)

cdef enum:
    COOKIE_TIME = 30                # seconds for which a cookie is good
    COUNTER_SIZE = 4
    EXPIRY_SCAN = 64                # sessions looked at for a silent one
    GENERATION_AT_FIRST = 0

cdef int64_t COUNTER_MAX = 0xFFFFFFFF
cdef double LAST_RECEIVED_RESOLUTION = 1.0   # seconds; the order of sessions is no more exact
cdef bytes NO_RANDOM = bytes(RESUME_RANDOM_SIZE)


cdef class SecureSocket(UdpSocket):
    """A bound socket, its sessions, and the KP/UDP server that receives their frames. Times are in seconds.

    `credentials.context` has the keys by identity. `worker` is the first byte of all connection IDs. Raises OSError if
    the system has no libcrypto.
    """

    def __init__(
        self, loop, DatagramCore core not None, Counters counters not None, credentials, *, int worker,
        double session_timeout, Py_ssize_t sessions_max,
    ):
        UdpSocket.__init__(self, loop, core, counters)
        aead.load()
        self.credentials = credentials
        self.failures = HandshakeLog("udp")
        self.worker = <uint8_t>worker
        self.session_timeout = session_timeout
        self.sessions_max = sessions_max
        self.cookie_secret = secrets.token_bytes(32)
        self.unknown_key = secrets.token_bytes(32)
        self.keys = credentials.context
        self.sessions = OrderedDict()
        self.by_identity = {}
        self.opened = OrderedDict()
        self.plain = Buffer()
        put_header(self.plain.reserve(SECURE_DATAGRAM_SIZE_MAX), 0)
        self.sealed = Buffer()
        self.sealed.reserve(SECURE_DATAGRAM_SIZE_MAX + SECURE_OVERHEAD)

    def session_count(self):
        """Return the number of sessions."""
        return len(self.sessions)

    # ------------------------------------------------------------ in

    cdef int on_datagram(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1:
        """Handle a datagram. Hot path."""
        cdef SecureHeader header
        cdef SecureFormat form = read_secure(data, size, &header)
        cdef SecureSession session
        if form != SECURE_WELL_FORMED:
            return self.counters.count("dropped", SECURE_REASONS[<int>form])
        if header.type == HELLO:
            return self.on_hello(&header, source)
        session = <SecureSession>self.sessions.get(header.connection_id)
        if header.type == SEALED or header.type == PATH_PROOF:
            if session is None:
                return self.send_unknown(&header, source)
            return self.on_sealed(session, &header, size, source)
        if header.type == RESUME:
            if session is None:
                return self.send_unknown(&header, source)
            if header.generation > session.generation:
                if not self.begin_generation(session, &header):
                    return 0
                return self.accept(session, &header, size, source)
            if header.generation != session.generation or session.resume_random != \
                    header.resume_random[:RESUME_RANDOM_SIZE]:
                return self.counters.count("dropped", "kpudp_old_generation")
            return self.on_sealed(session, &header, size, source)
        if header.type == OPEN:
            if session is not None:
                return self.on_sealed(session, &header, size, source)
            return self.on_open(&header, size, source)
        return self.counters.count("dropped", "kpudp_secure_direction")

    cdef int on_sealed(
        self, SecureSession session, const SecureHeader* header, Py_ssize_t size, const Address* source
    ) except -1:
        """Handle a datagram that claims to be of the current generation of a session. Hot path."""
        if not session.window.is_new(header.counter):
            return self.counters.count("dropped", "kpudp_replayed")
        if not session.unseal(header, &session.device_keys, self.plain.data + HEADER_SIZE):
            return self.counters.count("dropped", "kpudp_not_authentic")
        return self.accept(session, header, size, source)

    cdef bint begin_generation(self, SecureSession session, const SecureHeader* header) except -1:
        """Begin the generation of an authentic RESUME. Return False if it is not authentic.

        A generation is never used again, so a copy of any RESUME before is not even decrypted.
        """
        cdef DirectionKeys device_keys
        cdef bytes resume_random = header.resume_random[:RESUME_RANDOM_SIZE]
        cdef bytes keys = generation_keys(session.secret, header.generation, resume_random)
        memcpy(&device_keys, <const uint8_t*>keys, sizeof(DirectionKeys))
        if not session.unseal(header, &device_keys, self.plain.data + HEADER_SIZE):
            self.counters.count("dropped", "kpudp_not_authentic")
            return False
        self.core.forget(&session.core_address)
        session.use_keys(keys, header.generation, resume_random)
        return True

    cdef int accept(
        self, SecureSession session, const SecureHeader* header, Py_ssize_t size, const Address* source
    ) except -1:
        """Handle an authentic datagram, whose plain bytes stand in `plain`. Hot path."""
        cdef Py_ssize_t plain_size = header.sealed.size - TAG_SIZE
        if session.window.add(header.counter) and session.note_path(source, size, self.now) == CHECK_DUE:
            self.send_sealed(session, PATH_CHECK, <const uint8_t*>session.path_data, PATH_DATA_SIZE)
        if self.now - session.last_received > LAST_RECEIVED_RESOLUTION:
            session.last_received = self.now
            self.sessions.move_to_end(session.connection_id)
        if header.type == PATH_PROOF:
            if not session.prove(source, self.plain.data + HEADER_SIZE, plain_size):
                return self.counters.count("dropped", "kpudp_wrong_path_proof")
            return 0
        return self.core.receive(self.plain.data, HEADER_SIZE + plain_size, &session.core_address)

    # ------------------------------------------------------------ handshakes

    cdef int on_hello(self, const SecureHeader* header, const Address* source) except -1:
        """Answer HELLO with CHALLENGE, which is no longer, and keep nothing."""
        cdef uint8_t[CHALLENGE_SIZE] datagram
        cdef uint64_t connection_id
        cdef uint32_t stamp = <uint32_t>self.now
        cdef bytes cookie
        if not header.offered & 1 << (SUITE - 1):
            return self.counters.count("dropped", "kpudp_suite")
        connection_id = <uint64_t>self.worker << 56 | <uint64_t>secrets.randbits(56)
        cookie = self.cookie_of(header, connection_id, stamp, source)
        put_challenge(datagram, SUITE, header.client_random, connection_id, stamp, cookie)
        return UdpSocket.send(self, source, datagram, sizeof(datagram))

    cdef bytes cookie_of(
        self, const SecureHeader* header, uint64_t connection_id, uint32_t stamp, const Address* source
    ):
        """Return the cookie that binds a CHALLENGE to its HELLO, its time and its address."""
        cdef bytes bound = (<object>connection_id).to_bytes(8, "big") + (<object>stamp).to_bytes(4, "big") \
            + bytes((header.offered,)) + header.client_random[:CLIENT_RANDOM_SIZE] + address_key(source)
        return hmac.digest(self.cookie_secret, bound, hashlib.sha256)[:COOKIE_SIZE]

    cdef int on_open(self, const SecureHeader* header, Py_ssize_t size, const Address* source) except -1:
        """Begin the session of an authentic OPEN with a good cookie.

        An unknown identity costs the same work as a wrong key, and both are met with silence: who guesses learns
        nothing from the answer.
        """
        cdef SecureSession session, former
        cdef bytes identity = header.identity.data[:header.identity.size], transcript, psk
        cdef bytes cookie = self.cookie_of(header, header.connection_id, header.stamp, source)
        cdef int64_t age = <int64_t>self.now - <int64_t>header.stamp
        if header.suite != SUITE or header.connection_id in self.opened or not 0 <= age <= COOKIE_TIME \
                or not hmac.compare_digest(cookie, header.cookie[:COOKIE_SIZE]):
            self.counters.count("dropped", "kpudp_wrong_cookie")
            return self.send_unknown(header, source)
        psk = self.keys.get(identity)
        session = SecureSession()
        session.connection_id = header.connection_id
        transcript = header.header.data[:header.header.size - COUNTER_SIZE]
        session.secret = session_secret(self.unknown_key if psk is None else psk, transcript)
        session.use_keys(
            generation_keys(session.secret, GENERATION_AT_FIRST, NO_RANDOM), GENERATION_AT_FIRST, NO_RANDOM
        )
        if not session.unseal(header, &session.device_keys, self.plain.data + HEADER_SIZE):
            return self.refuse_open(header, source, "kpudp_open_not_authentic", "unknown identity or wrong key")
        if psk is None:  # cannot be: nobody knows that key
            return 0
        self.expire(self.now)
        if len(self.opened) >= self.sessions_max:
            return self.refuse_open(header, source, "kpudp_sessions_full", "too many new sessions")
        self.opened[header.connection_id] = self.now + COOKIE_TIME + 1
        session.identity = identity
        session.psk = psk
        session.client = Client(f"psk:{shown_identity(identity)}")
        session.address = source[0]
        session.last_received = self.now
        former = self.by_identity.get(identity)
        if former is not None:
            self.close_session(former, "kpudp_session_replaced")
        elif len(self.sessions) >= self.sessions_max:
            self.close_session(next(iter(self.sessions.values())), "kpudp_sessions_full")
        self.sessions[session.connection_id] = session
        self.by_identity[identity] = session
        return self.accept(session, header, size, source)

    cdef int refuse_open(self, const SecureHeader* header, const Address* source, str reason, str detail) except -1:
        """Count and log an OPEN that begins no session, and say nothing to its sender."""
        self.counters.count("dropped", reason)
        self.failures.failed(reason, detail, address_text(self.client_address(source)), self.now)
        return 0

    cdef int send_unknown(self, const SecureHeader* header, const Address* source) except -1:
        """Tell the sender of a longer datagram that there is no such session, which he does not have to believe."""
        cdef uint8_t[UNKNOWN_SESSION_SIZE] datagram
        self.counters.count("dropped", "kpudp_unknown_session")
        put_sealed_header(datagram, UNKNOWN_SESSION, header.connection_id, header.counter)
        return UdpSocket.send(self, source, datagram, sizeof(datagram))

    # ------------------------------------------------------------ out

    cdef int send(self, const Address* destination, const uint8_t* data, Py_ssize_t size) except -1:
        """Encrypt a datagram of the server. Hot path."""
        cdef SecureSession session = self.session_at(destination)
        if session is None:
            return self.counters.count("dropped", "kpudp_no_session")
        return self.send_sealed(session, SEALED, data + HEADER_SIZE, size - HEADER_SIZE)

    cdef int send_sealed(self, SecureSession session, uint8_t type, const uint8_t* data, Py_ssize_t size) except -1:
        """Encrypt bytes, and send them where the session allows. Hot path."""
        cdef uint8_t[NONCE_SIZE] nonce
        cdef uint8_t* datagram = self.sealed.data
        cdef uint32_t counter
        if session.sent > COUNTER_MAX or SECURE_OVERHEAD + size > SECURE_DATAGRAM_SIZE_MAX:
            return self.counters.count("dropped", "kpudp_counter_used_up")
        counter = <uint32_t>session.sent
        session.sent += 1
        put_sealed_header(datagram, type, session.connection_id, counter)
        make_nonce(nonce, session.server_keys.iv, counter)
        if not seal(
            session.server_keys.key, nonce, Slice(datagram, SEALED_HEADER_SIZE), data, size,
            datagram + SEALED_HEADER_SIZE,
        ):
            raise OSError("libcrypto cannot encrypt")
        size += SECURE_OVERHEAD
        if type == PATH_CHECK:
            # It is shorter than three times the shortest datagram that may come from a candidate.
            session.candidate_sent += size
            return UdpSocket.send(self, &session.candidate, datagram, size)
        return UdpSocket.send(self, session.path_for(size, self.now), datagram, size)

    cdef SecureSession session_at(self, const Address* address):
        """Return the session whose present generation the server knows by an address, or None. Hot path."""
        cdef uint64_t connection_id
        cdef uint16_t generation
        cdef SecureSession session
        memcpy(&connection_id, address.bytes + 2, sizeof(uint64_t))
        memcpy(&generation, address.bytes + 2 + sizeof(uint64_t), sizeof(uint16_t))
        session = <SecureSession>self.sessions.get(connection_id)
        return session if session is not None and session.generation == generation else None

    cdef object client_of(self, const Address* address):
        cdef SecureSession session = self.session_at(address)
        return None if session is None else session.client

    cdef bytes client_address(self, const Address* address):
        cdef SecureSession session = self.session_at(address)
        return UdpSocket.client_address(self, address if session is None else &session.address)

    # ------------------------------------------------------------ time, and the end

    def check(self):
        """Act on time that has passed: other keys, silent sessions, and what the server does."""
        if self.fd < 0:
            return False
        self.now = self.loop.time()
        if self.credentials.context is not self.keys:
            self.apply_keys()
        self.expire(self.now)
        return self.core.check(self.now)

    cdef int apply_keys(self) except -1:
        """Use the keys that were read last. Sessions of keys that are no longer there end."""
        cdef SecureSession session
        self.keys = self.credentials.context
        for session in list(self.sessions.values()):
            if self.keys.get(session.identity) != session.psk:
                self.close_session(session, "kpudp_key_removed")
        return 0

    cdef int expire(self, double now) except -1:
        """End sessions that have been silent too long, and forget IDs that no OPEN can use again."""
        cdef SecureSession session
        cdef int _
        while self.opened:
            connection_id = next(iter(self.opened))
            if now < self.opened[connection_id]:
                break
            del self.opened[connection_id]
        for _ in range(EXPIRY_SCAN):
            if not self.sessions:
                break
            session = next(iter(self.sessions.values()))
            if now - session.last_received < self.session_timeout:
                break
            self.close_session(session, "kpudp_session_timeout")
        return 0

    cdef int close_session(self, SecureSession session, str reason) except -1:
        """Forget a session, and let the server forget its peer."""
        self.counters.count("closed", reason)
        self.core.forget(&session.core_address)
        del self.sessions[session.connection_id]
        del self.by_identity[session.identity]
        return 0
