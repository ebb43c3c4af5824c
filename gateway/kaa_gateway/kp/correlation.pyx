"""Correlation IDs that name their session, so that no table of outstanding requests is needed.

A correlation ID is a UUID of version 8 (RFC 9562 section 5.8), most significant bits first:

    tag 24 | slot 24 | version 4 | generation 12 | variant 2 | service 2 | sequence 28 | count 32

`tag` is random for each worker process, so that an ID of another replica, or of an earlier life of this one, is told
apart. `slot` and `generation` name a session, `service` how the message came in (its QoS, or that it was a request).
`count` makes the IDs of a worker differ: a stream drops a message whose ID it has seen in the last two minutes.
"""

from libc.stdint cimport uint16_t
from libc.string cimport memcpy

cdef enum:
    TAG_BITS = 24
    COUNT_BITS = 32
    UUID_SIZE = 36  # characters
    VERSION = 8
    VARIANT = 2

    NO_DIGIT = 0x100  # a bit that no pair of digits has

cdef uint32_t COUNT_MAX = 0xFFFFFFFF  # beyond an int, which members of an enum are

cdef uint8_t[512] HEX_PAIRS
# What a digit is worth, as the first and as the second of a pair.
cdef uint16_t[256] HEX_FIRST
cdef uint16_t[256] HEX_SECOND


cdef void fill_tables() noexcept:
    cdef int i
    cdef const char* digits = "0123456789abcdef"
    for i in range(256):
        HEX_PAIRS[2 * i] = digits[i >> 4]
        HEX_PAIRS[2 * i + 1] = digits[i & 15]
        HEX_FIRST[i] = HEX_SECOND[i] = NO_DIGIT
    for i in range(16):
        HEX_FIRST[<uint8_t>digits[i]] = <uint16_t>(i << 4)
        HEX_SECOND[<uint8_t>digits[i]] = <uint16_t>i
    for i in range(10, 16):
        HEX_FIRST[<uint8_t>digits[i] - 32] = <uint16_t>(i << 4)
        HEX_SECOND[<uint8_t>digits[i] - 32] = <uint16_t>i


fill_tables()


cdef inline void put_hex(uint8_t* at, uint64_t value, int size) noexcept nogil:
    """Write the low `size` bytes of value as hexadecimal digits."""
    cdef int i
    for i in range(size):
        memcpy(at + 2 * i, &HEX_PAIRS[2 * (value >> 8 * (size - 1 - i) & 0xFF)], 2)


cdef inline uint64_t read_hex(const uint8_t* at, int size, uint16_t* seen) noexcept nogil:
    """Return `size` bytes of twice as many digits. Set NO_DIGIT in `seen` if a character is no digit."""
    cdef int i
    cdef uint16_t pair
    cdef uint64_t result = 0
    for i in range(size):
        pair = HEX_FIRST[at[2 * i]] | HEX_SECOND[at[2 * i + 1]]
        seen[0] |= pair
        result = result << 8 | (pair & 0xFF)
    return result


cdef class Correlator:
    """Makes and reads the correlation IDs of one worker.

    `tag` is the worker's 24 bits; the first ID has `count`, of 32 bits, and each one after it the next number.
    """

    def __init__(self, tag, count):
        if not 0 <= tag < 1 << TAG_BITS or not 0 <= count <= COUNT_MAX:
            raise ValueError("a tag of 24 bits and a count of 32 bits")
        self.tag = tag
        self.count = count

    cdef void put(self, uint8_t* at, uint64_t session, Service service, uint32_t sequence) noexcept:
        """Write the 36 characters of a new ID. Hot path."""
        cdef uint64_t high, low
        high = (
            self.tag << 40 | (session >> GENERATION_BITS) << 16 | VERSION << 12
            | (session & ((1 << GENERATION_BITS) - 1))
        )
        low = (
            <uint64_t>VARIANT << 62 | <uint64_t>service << 60 | <uint64_t>(sequence & SEQUENCE_MASK) << COUNT_BITS
            | self.count
        )
        self.count += 1
        put_hex(at, high >> 32, 4)
        at[8] = c"-"
        put_hex(at + 9, high >> 16, 2)
        at[13] = c"-"
        put_hex(at + 14, high, 2)
        at[18] = c"-"
        put_hex(at + 19, low >> 48, 2)
        at[23] = c"-"
        put_hex(at + 24, low, 6)

    cdef bint read(self, Slice text, Correlation* correlation) noexcept:
        """Read an ID into `correlation`. Return whether it is one of this worker. Hot path; any bytes are safe."""
        cdef uint64_t a, b, c, d, e
        cdef uint16_t seen = 0
        cdef const uint8_t* at = text.data
        if text.size != UUID_SIZE or at[8] != c"-" or at[13] != c"-" or at[18] != c"-" or at[23] != c"-":
            return False
        a = read_hex(at, 4, &seen)
        if a >> 8 != self.tag:
            return False
        b = read_hex(at + 9, 2, &seen)
        c = read_hex(at + 14, 2, &seen)
        d = read_hex(at + 19, 2, &seen)
        e = read_hex(at + 24, 6, &seen)
        if seen & NO_DIGIT or c >> GENERATION_BITS != VERSION or d >> 14 != VARIANT:
            return False
        correlation.session = ((a & 0xFF) << 16 | b) << GENERATION_BITS | (c & ((1 << GENERATION_BITS) - 1))
        correlation.service = <Service>(d >> 12 & 3)
        correlation.sequence = <uint32_t>((d & 0xFFF) << 16 | e >> 32)
        return True

    def encode(self, session, Service service, sequence):
        """Return a new ID as text."""
        cdef uint8_t[UUID_SIZE] out
        self.put(out, session, service, sequence)
        return out[:UUID_SIZE].decode("ascii")

    def decode(self, bytes text not None):
        """Return (session key, service, sequence), or None if the ID is not this worker's."""
        cdef Correlation correlation
        if not self.read(Slice(<const uint8_t*>text, len(text)), &correlation):
            return None
        return correlation.session, <int>correlation.service, correlation.sequence
