"""A session of KP/UDP version 2: its keys, its replay window, and the addresses of its device.

What lives here: one session. What does not: which sessions there are, and their datagrams (secure_socket.pyx).

Source: docs/kp-over-udp-secure.md, "Keys" and "A device that moves".
"""

import secrets

from libc.string cimport memcmp, memcpy, memset

from kaa_gateway.wire cimport aead
from kaa_gateway.wire.kpudp_secure cimport make_nonce

cdef enum:
    AMPLIFICATION_MAX = 3   # bytes to a candidate for each byte from it
    NO_FAMILY = 0xFF        # twice in the place of an address family: no address of a socket begins so

cdef double CANDIDATE_TIME = 10.0   # seconds from its last datagram for which a candidate is kept
cdef double CHECK_PERIOD = 1.0      # seconds between two PATH_CHECKs

cdef inline bint same(const Address* one, const Address* other) noexcept:
    return memcmp(one, other, sizeof(Address)) == 0


cdef class SecureSession:
    """A session of one device, from its OPEN on."""

    def __cinit__(self):
        self.window = ReplayWindow()

    cdef int use_keys(self, bytes keys, uint16_t generation, bytes resume_random) except -1:
        """Begin a generation: for the core, a new peer at a new address."""
        if len(keys) != 2 * sizeof(DirectionKeys):
            raise ValueError("the keys of a generation have another size")
        memcpy(&self.device_keys, <const uint8_t*>keys, sizeof(DirectionKeys))
        memcpy(&self.server_keys, <const uint8_t*>keys + sizeof(DirectionKeys), sizeof(DirectionKeys))
        self.generation = generation
        self.resume_random = resume_random
        self.window.restart()
        self.sent = 0
        memset(&self.core_address, 0, sizeof(Address))
        self.core_address.bytes[0] = self.core_address.bytes[1] = NO_FAMILY
        memcpy(self.core_address.bytes + 2, &self.connection_id, sizeof(uint64_t))
        memcpy(self.core_address.bytes + 2 + sizeof(uint64_t), &generation, sizeof(uint16_t))
        self.core_address.size = 2 + sizeof(uint64_t) + sizeof(uint16_t)
        return 0

    cdef bint unseal(self, const SecureHeader* header, const DirectionKeys* keys, uint8_t* plain) noexcept:
        """Decrypt a datagram of the device. Return False if it is not authentic. Hot path."""
        cdef uint8_t[NONCE_SIZE] nonce
        make_nonce(nonce, keys.iv, header.counter)
        return aead.unseal(keys.key, nonce, header.header, header.sealed.data, header.sealed.size, plain)

    cdef int note_path(self, const Address* source, Py_ssize_t size, double now) except -1:
        """Note where the newest datagram has come from. Return CHECK_DUE if PATH_CHECK is to be sent, else 0.

        Hot path. An older datagram says nothing: it may have been held back on its way.
        """
        if same(source, &self.address):
            self.candidate.size = 0
            return 0
        if self.candidate.size == 0 or now > self.candidate_until or not same(source, &self.candidate):
            self.candidate = source[0]
            self.candidate_received = self.candidate_sent = 0
            self.path_data = secrets.token_bytes(PATH_DATA_SIZE)
            self.checked_at = now - CHECK_PERIOD
        self.candidate_received += size
        self.candidate_until = now + CANDIDATE_TIME
        if now - self.checked_at < CHECK_PERIOD:
            return 0
        self.checked_at = now
        return CHECK_DUE

    cdef const Address* path_for(self, Py_ssize_t size, double now) noexcept:
        """Return where a datagram of this size goes: to the candidate if its limit allows that. Hot path."""
        if self.candidate.size == 0 or now > self.candidate_until \
                or self.candidate_sent + size > AMPLIFICATION_MAX * self.candidate_received:
            return &self.address
        self.candidate_sent += size
        return &self.candidate

    cdef bint prove(self, const Address* source, const uint8_t* data, Py_ssize_t size) except -1:
        """Let the candidate be the address if the data in PATH_PROOF prove it. Return whether they do."""
        if self.candidate.size == 0 or not same(source, &self.candidate) or size != PATH_DATA_SIZE \
                or memcmp(data, <const uint8_t*>self.path_data, PATH_DATA_SIZE) != 0:
            return False
        self.address = self.candidate
        self.candidate.size = 0
        return True
