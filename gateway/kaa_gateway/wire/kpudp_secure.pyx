"""KP/UDP, version 2: reads and writes what stands around the sealed frames of a datagram.

Ciphers, keys, sessions and sockets live elsewhere; the frames themselves are those of version 1 (kpudp.pyx).

Source: docs/kp-over-udp-secure.md, "Datagrams".
"""

from enum import IntEnum
from typing import NamedTuple

from libc.string cimport memcpy, memset

from kaa_gateway.errors import ProtocolError

from kaa_gateway.wire.aead cimport NONCE_SIZE, TAG_SIZE
from kaa_gateway.wire.kpudp cimport MAGIC

SECURE_REASONS = (
    "", "kpudp_not_kpudp", "kpudp_version", "kpudp_secure_type", "kpudp_secure_truncated", "kpudp_secure_identity",
    "kpudp_datagram_too_large",
)
"""The reason codes of SecureFormat."""

cdef enum:
    ID_OFFSET = 2              # of the connection ID; the program that steers datagrams (net/steering.py) knows it
    AFTER_ID = ID_OFFSET + CONNECTION_ID_SIZE
    COUNTER_SIZE = 4
    OPEN_FIXED_SIZE = AFTER_ID + 2 + CLIENT_RANDOM_SIZE + 4 + COOKIE_SIZE + 1   # before the identity
    RESUME_HEADER_SIZE = AFTER_ID + 2 + RESUME_RANDOM_SIZE + COUNTER_SIZE


# ---------------------------------------------------------------- decoding

cdef inline uint16_t get_16(const uint8_t* at) noexcept nogil:
    return <uint16_t>(at[0] << 8 | at[1])


cdef inline uint32_t get_32(const uint8_t* at) noexcept nogil:
    return <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | at[3]


cdef inline uint64_t get_64(const uint8_t* at) noexcept nogil:
    return <uint64_t>get_32(at) << 32 | get_32(at + 4)


cdef inline SecureFormat take_sealed(
    const uint8_t* data, Py_ssize_t size, Py_ssize_t header_size, SecureHeader* header
) noexcept nogil:
    """Read the counter at the end of a header of this size, and the sealed bytes behind it. Hot path."""
    if size < header_size + TAG_SIZE:
        return TRUNCATED
    header.counter = get_32(data + header_size - COUNTER_SIZE)
    header.header = Slice(data, header_size)
    header.sealed = Slice(data + header_size, size - header_size)
    return SECURE_WELL_FORMED


cdef SecureFormat read_secure(const uint8_t* data, Py_ssize_t size, SecureHeader* header) noexcept nogil:
    """Read a datagram. Hot path; any bytes are safe."""
    memset(header, 0, sizeof(SecureHeader))
    if size < ID_OFFSET or data[0] >> 4 != MAGIC:
        return NOT_KPUDP
    if data[0] & 0x0F != SECURE_VERSION:
        return OTHER_VERSION
    header.type = data[1]
    if not HELLO <= header.type <= PATH_PROOF:
        return OTHER_TYPE
    if size > SECURE_DATAGRAM_SIZE_MAX:
        return TOO_LARGE
    if header.type == HELLO:
        if size < HELLO_SIZE:
            return TRUNCATED
        header.offered = data[ID_OFFSET]
        header.client_random = data + ID_OFFSET + 1
        return SECURE_WELL_FORMED
    if header.type == CHALLENGE:
        if size < CHALLENGE_SIZE:
            return TRUNCATED
        header.connection_id = get_64(data + ID_OFFSET)
        header.suite = data[AFTER_ID]
        header.client_random = data + AFTER_ID + 1
        header.stamp = get_32(header.client_random + CLIENT_RANDOM_SIZE)
        header.cookie = header.client_random + CLIENT_RANDOM_SIZE + 4
        return SECURE_WELL_FORMED
    if size < AFTER_ID + COUNTER_SIZE:
        return TRUNCATED
    header.connection_id = get_64(data + ID_OFFSET)
    if header.type == OPEN:
        return read_open(data, size, header)
    if header.type == RESUME:
        if size < RESUME_HEADER_SIZE:
            return TRUNCATED
        header.generation = get_16(data + AFTER_ID)
        header.resume_random = data + AFTER_ID + 2
        return take_sealed(data, size, RESUME_HEADER_SIZE, header)
    if header.type == UNKNOWN_SESSION:
        header.counter = get_32(data + AFTER_ID)
        return SECURE_WELL_FORMED
    return take_sealed(data, size, SEALED_HEADER_SIZE, header)


cdef SecureFormat read_open(const uint8_t* data, Py_ssize_t size, SecureHeader* header) noexcept nogil:
    """Read what follows the connection ID of OPEN."""
    cdef const uint8_t* at = data + AFTER_ID
    if size < OPEN_FIXED_SIZE:
        return TRUNCATED
    header.offered = at[0]
    header.suite = at[1]
    header.client_random = at + 2
    header.stamp = get_32(header.client_random + CLIENT_RANDOM_SIZE)
    header.cookie = header.client_random + CLIENT_RANDOM_SIZE + 4
    header.identity = Slice(data + OPEN_FIXED_SIZE, data[OPEN_FIXED_SIZE - 1])
    if not 1 <= header.identity.size <= IDENTITY_SIZE_MAX:
        return BAD_IDENTITY
    return take_sealed(data, size, OPEN_FIXED_SIZE + header.identity.size + COUNTER_SIZE, header)


# ---------------------------------------------------------------- encoding

cdef inline uint8_t* put_32(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 24)
    at[1] = <uint8_t>(value >> 16 & 0xFF)
    at[2] = <uint8_t>(value >> 8 & 0xFF)
    at[3] = <uint8_t>(value & 0xFF)
    return at + 4


cdef uint8_t* put_start(uint8_t* at, uint8_t type, uint64_t connection_id) noexcept nogil:
    """Write version, type and connection ID."""
    at[0] = MAGIC << 4 | SECURE_VERSION
    at[1] = type
    return put_32(put_32(at + ID_OFFSET, <uint32_t>(connection_id >> 32)), <uint32_t>connection_id)


cdef uint8_t* put_challenge(
    uint8_t* at, uint8_t suite, const uint8_t* client_random, uint64_t connection_id, uint32_t stamp,
    const uint8_t* cookie,
) noexcept nogil:
    """Write CHALLENGE: CHALLENGE_SIZE bytes."""
    at = put_start(at, CHALLENGE, connection_id)
    at[0] = suite
    memcpy(at + 1, client_random, CLIENT_RANDOM_SIZE)
    at = put_32(at + 1 + CLIENT_RANDOM_SIZE, stamp)
    memcpy(at, cookie, COOKIE_SIZE)
    return at + COOKIE_SIZE


cdef uint8_t* put_sealed_header(uint8_t* at, uint8_t type, uint64_t connection_id, uint32_t counter) noexcept nogil:
    """Write the header of SEALED, PATH_CHECK or PATH_PROOF, or all of UNKNOWN_SESSION. Hot path."""
    return put_32(put_start(at, type, connection_id), counter)


cdef void make_nonce(uint8_t* nonce, const uint8_t* iv, uint32_t counter) noexcept nogil:
    """Make the nonce of a datagram: the IV of its direction, with the counter over the last bytes. Hot path."""
    cdef int i
    memcpy(nonce, iv, NONCE_SIZE)
    for i in range(COUNTER_SIZE):
        nonce[NONCE_SIZE - 1 - i] ^= <uint8_t>(counter >> (8 * i) & 0xFF)


# ---------------------------------------------------------------- for Python

Type = IntEnum("Type", {
    "HELLO": HELLO, "CHALLENGE": CHALLENGE, "OPEN": OPEN, "SEALED": SEALED, "RESUME": RESUME,
    "UNKNOWN_SESSION": UNKNOWN_SESSION, "PATH_CHECK": PATH_CHECK, "PATH_PROOF": PATH_PROOF,
})
"""The types of datagrams."""


class SecureDatagram(NamedTuple):
    """A datagram. Fields that its type does not have keep their defaults."""

    type: Type
    connection_id: bytes = b""
    offered: int = 0
    suite: int = 0
    client_random: bytes = b""
    stamp: int = 0
    cookie: bytes = b""
    identity: bytes = b""
    generation: int = 0
    resume_random: bytes = b""
    counter: int = 0
    header: bytes = b""
    sealed: bytes = b""


cdef bytes bytes_at(const uint8_t* data, Py_ssize_t size):
    return b"" if data == NULL else data[:size]


def decode_secure(bytes datagram not None):
    """Return a datagram as it stands, with its sealed bytes. Raises ProtocolError if it is malformed."""
    cdef SecureHeader header
    cdef SecureFormat form = read_secure(datagram, len(datagram), &header)
    if form != SECURE_WELL_FORMED:
        raise ProtocolError(SECURE_REASONS[<int>form])
    return SecureDatagram(
        Type(header.type),
        b"" if header.type == HELLO else (<object>header.connection_id).to_bytes(CONNECTION_ID_SIZE, "big"),
        header.offered, header.suite,
        bytes_at(header.client_random, CLIENT_RANDOM_SIZE), header.stamp, bytes_at(header.cookie, COOKIE_SIZE),
        bytes_at(header.identity.data, header.identity.size), header.generation,
        bytes_at(header.resume_random, RESUME_RANDOM_SIZE), header.counter,
        bytes_at(header.header.data, header.header.size), bytes_at(header.sealed.data, header.sealed.size),
    )
