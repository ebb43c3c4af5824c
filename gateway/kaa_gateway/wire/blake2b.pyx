"""The hash function BLAKE2b, without a key, for native code: an object of hashlib takes as long again as the hash.

Source: RFC 7693, whose names the variables have.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

cdef enum:
    BLOCK_SIZE = 128   # bytes
    SEQUENTIAL = 0x01010000  # in the parameter block: no tree, no key

# Section 2.6: the first words of the fractional parts of the square roots of the first eight primes.
cdef uint64_t[8] IV = [
    0x6A09E667F3BCC908ULL, 0xBB67AE8584CAA73BULL, 0x3C6EF372FE94F82BULL, 0xA54FF53A5F1D36F1ULL,
    0x510E527FADE682D1ULL, 0x9B05688C2B3E6C1FULL, 0x1F83D9ABFB41BD6BULL, 0x5BE0CD19137E2179ULL,
]


cdef inline uint64_t rotated(uint64_t word, int count) noexcept nogil:
    return word >> count | word << (64 - count)


cdef inline void mix(uint64_t* a, uint64_t* b, uint64_t* c, uint64_t* d, uint64_t x, uint64_t y) noexcept nogil:
    """Section 3.1, function G."""
    a[0] += b[0] + x
    d[0] = rotated(d[0] ^ a[0], 32)
    c[0] += d[0]
    b[0] = rotated(b[0] ^ c[0], 24)
    a[0] += b[0] + y
    d[0] = rotated(d[0] ^ a[0], 16)
    c[0] += d[0]
    b[0] = rotated(b[0] ^ c[0], 63)


cdef inline void mix_all(
    uint64_t* v, const uint64_t* m,
    int s0, int s1, int s2, int s3, int s4, int s5, int s6, int s7,
    int s8, int s9, int s10, int s11, int s12, int s13, int s14, int s15,
) noexcept nogil:
    """Section 3.2, a round of F; `s` is the order of the words of the block. Inline, so that the order is constant."""
    mix(&v[0], &v[4], &v[8], &v[12], m[s0], m[s1])
    mix(&v[1], &v[5], &v[9], &v[13], m[s2], m[s3])
    mix(&v[2], &v[6], &v[10], &v[14], m[s4], m[s5])
    mix(&v[3], &v[7], &v[11], &v[15], m[s6], m[s7])
    mix(&v[0], &v[5], &v[10], &v[15], m[s8], m[s9])
    mix(&v[1], &v[6], &v[11], &v[12], m[s10], m[s11])
    mix(&v[2], &v[7], &v[8], &v[13], m[s12], m[s13])
    mix(&v[3], &v[4], &v[9], &v[14], m[s14], m[s15])


cdef void compress(uint64_t* h, const uint8_t* block, uint64_t t, bint final) noexcept nogil:
    """Section 3.2, function F: take a block into the state `h`. `t` is the number of bytes up to its end."""
    cdef uint64_t[16] v
    cdef uint64_t[16] m
    cdef int i
    memcpy(m, block, BLOCK_SIZE)  # its words are little-endian, as those of all processors that the gateway runs on
    for i in range(8):
        v[i] = h[i]
        v[i + 8] = IV[i]
    v[12] ^= t
    if final:
        v[14] = ~v[14]
    # Section 2.7, SIGMA. The last two rounds are as the first two.
    mix_all(v, m, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    mix_all(v, m, 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3)
    mix_all(v, m, 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4)
    mix_all(v, m, 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8)
    mix_all(v, m, 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13)
    mix_all(v, m, 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9)
    mix_all(v, m, 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11)
    mix_all(v, m, 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10)
    mix_all(v, m, 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5)
    mix_all(v, m, 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0)
    mix_all(v, m, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    mix_all(v, m, 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3)
    for i in range(8):
        h[i] ^= v[i] ^ v[i + 8]


cdef void blake2b(const uint8_t* data, Py_ssize_t size, uint8_t* digest, Py_ssize_t digest_size) noexcept nogil:
    """Write the digest of some bytes, of a size from 1 to BLAKE2B_SIZE_MAX (section 3.3)."""
    cdef uint64_t[8] h
    cdef uint8_t[BLOCK_SIZE] last
    cdef uint64_t t = 0
    memcpy(h, IV, sizeof(h))
    h[0] ^= <uint64_t>SEQUENTIAL ^ <uint64_t>digest_size
    while size > BLOCK_SIZE:
        t += BLOCK_SIZE
        compress(h, data, t, False)
        data += BLOCK_SIZE
        size -= BLOCK_SIZE
    memset(last, 0, BLOCK_SIZE)
    if size:  # or `data` may be NULL
        memcpy(last, data, <size_t>size)
    compress(h, last, t + <uint64_t>size, True)
    memcpy(digest, h, <size_t>digest_size)


def digest(bytes data not None, Py_ssize_t digest_size):
    """Return the digest of some bytes."""
    cdef uint8_t[BLAKE2B_SIZE_MAX] found
    if not 0 < digest_size <= BLAKE2B_SIZE_MAX:
        raise ValueError("no size of a digest of BLAKE2b")
    blake2b(data, len(data), found, digest_size)
    return found[:digest_size]
