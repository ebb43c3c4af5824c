from libc.stdint cimport uint8_t

cdef enum:
    BLAKE2B_SIZE_MAX = 64  # bytes of a digest

cdef void blake2b(const uint8_t* data, Py_ssize_t size, uint8_t* digest, Py_ssize_t digest_size) noexcept nogil
