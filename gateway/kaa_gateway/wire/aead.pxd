from libc.stdint cimport uint8_t

from kaa_gateway.wire.buffer cimport Slice

cdef enum:
    KEY_SIZE = 32    # bytes
    NONCE_SIZE = 12
    TAG_SIZE = 16


cdef bint seal(
    const uint8_t* key, const uint8_t* nonce, Slice header, const uint8_t* plain, Py_ssize_t size, uint8_t* sealed
) noexcept nogil
cdef bint unseal(
    const uint8_t* key, const uint8_t* nonce, Slice header, const uint8_t* sealed, Py_ssize_t size, uint8_t* plain
) noexcept nogil
