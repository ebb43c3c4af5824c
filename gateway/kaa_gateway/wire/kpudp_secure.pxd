from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from kaa_gateway.wire.buffer cimport Slice

cdef enum:
    SECURE_VERSION = 2
    SUITE = 1                  # ChaCha20-Poly1305 and SHA-256
    CONNECTION_ID_SIZE = 8     # bytes
    CLIENT_RANDOM_SIZE = 16
    COOKIE_SIZE = 16
    RESUME_RANDOM_SIZE = 8
    PATH_DATA_SIZE = 8
    IDENTITY_SIZE_MAX = 128
    HELLO_SIZE = 48            # at least
    CHALLENGE_SIZE = 47
    SEALED_HEADER_SIZE = 14    # of SEALED, PATH_CHECK and PATH_PROOF
    UNKNOWN_SESSION_SIZE = 14
    SECURE_OVERHEAD = 30       # of SEALED: header and tag
    SECURE_DATAGRAM_SIZE_MAX = 1228


cdef enum SecureType:
    HELLO = 1
    CHALLENGE
    OPEN
    SEALED
    RESUME
    UNKNOWN_SESSION
    PATH_CHECK
    PATH_PROOF


# The result of reading a datagram. The names of SECURE_REASONS in kpudp_secure.pyx follow this order.
cdef enum SecureFormat:
    SECURE_WELL_FORMED = 0
    NOT_KPUDP
    OTHER_VERSION
    OTHER_TYPE
    TRUNCATED
    BAD_IDENTITY
    TOO_LARGE


cdef struct SecureHeader:
    # A datagram. Its pointers borrow from it. Fields that its type does not have are 0 or NULL.
    uint8_t type
    uint8_t offered                # suites of the device, a bit for each
    uint8_t suite                  # that the server has chosen
    uint64_t connection_id
    const uint8_t* client_random   # CLIENT_RANDOM_SIZE bytes
    uint32_t stamp
    const uint8_t* cookie          # COOKIE_SIZE bytes
    Slice identity
    uint16_t generation
    const uint8_t* resume_random   # RESUME_RANDOM_SIZE bytes
    uint32_t counter
    Slice header                   # what is authenticated beside the sealed bytes
    Slice sealed                   # with their tag


cdef SecureFormat read_secure(const uint8_t* data, Py_ssize_t size, SecureHeader* header) noexcept nogil

# The writers return the position behind what they wrote.
cdef uint8_t* put_challenge(
    uint8_t* at, uint8_t suite, const uint8_t* client_random, uint64_t connection_id, uint32_t stamp,
    const uint8_t* cookie,
) noexcept nogil
cdef uint8_t* put_sealed_header(uint8_t* at, uint8_t type, uint64_t connection_id, uint32_t counter) noexcept nogil
cdef void make_nonce(uint8_t* nonce, const uint8_t* iv, uint32_t counter) noexcept nogil
