"""The Avro binary encoding of the types that 4/ESP uses: int, long, bytes, string, and unions with null.

The codec itself is inline in avro.pxd, so that esp.pyx compiles it in; this module gives it a Python face for tests
and names what can be wrong. Every other schema is fastavro's.

Source: Apache Avro 1.11 specification, "Binary Encoding".
"""

from kaa_gateway.wire.words cimport little_endian, trailing_zeros

from kaa_gateway.errors import MalformedAvro

MALFORMED_REASONS = (
    "",
    "avro_truncated",
    "avro_overlong_varint",
    "avro_negative_length",
    "avro_bad_union_branch",
    "avro_int_out_of_range",
)


cdef int raise_malformed(Status status) except -1:
    raise MalformedAvro(MALFORMED_REASONS[<int>status])


cdef inline uint64_t sevens_of(uint64_t eight) noexcept nogil:
    """Return the number that the lower seven bits of eight bytes are, the lowest byte first."""
    eight = (eight & <uint64_t>0x007F007F007F007F) | (eight & <uint64_t>0x7F007F007F007F00) >> 1
    eight = (eight & <uint64_t>0x00003FFF00003FFF) | (eight & <uint64_t>0x3FFF00003FFF0000) >> 2
    return (eight & <uint64_t>0x0FFFFFFF) | (eight & <uint64_t>0x0FFFFFFF00000000) >> 4


cdef const uint8_t* read_long(const uint8_t* at, const uint8_t* end, int64_t* value, Status* status) noexcept nogil:
    """Read an `int` or `long` of any size. Return the position behind it, or `end` after a failure. Hot path."""
    cdef uint64_t result = 0, eight, ends
    cdef uint8_t byte
    cdef int shift = 0
    if end - at >= 2 and at[1] < 0x80 <= at[0]:
        result = <uint64_t>at[1] << 7 | (at[0] & 0x7F)
        value[0] = <int64_t>(result >> 1) ^ -<int64_t>(result & 1)
        return at + 2
    value[0] = 0
    if end - at >= 8:
        memcpy(&eight, at, 8)
        eight = little_endian(eight)
        ends = ~eight & <uint64_t>0x8080808080808080  # of bytes that end a number
        if ends:
            result = sevens_of(eight & (ends ^ (ends - 1)))
            value[0] = <int64_t>(result >> 1) ^ -<int64_t>(result & 1)
            return at + (trailing_zeros(ends) >> 3) + 1
    while True:
        if at >= end:
            return fail(end, TRUNCATED, status)
        byte = at[0]
        at += 1
        if shift == 63 and byte > 1:
            return fail(end, OVERLONG_VARINT, status)
        result |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    value[0] = <int64_t>(result >> 1) ^ -<int64_t>(result & 1)
    return at


cdef const uint8_t* read_bytes(const uint8_t* at, const uint8_t* end, Slice* value, Status* status) noexcept nogil:
    """Read `bytes` or a `string` of any size. Return the position behind it, or `end` after a failure. Hot path."""
    cdef int64_t size
    value[0] = Slice(NULL, 0)
    if end - at >= 2 and at[0] & 0x81 == 0x80 and at[1] < 0x80:  # up to 8 KiB
        size = <int64_t>at[1] << 6 | (at[0] & 0x7F) >> 1
        at += 2
    else:
        at = read_long(at, end, &size, status)
        if status[0] != GOOD:
            return end
    if size < 0:
        return fail(end, NEGATIVE_LENGTH, status)
    if size > end - at:
        return fail(end, TRUNCATED, status)
    value[0] = Slice(at, <Py_ssize_t>size)
    return at + size


def encode_long(int64_t value):
    """Return an Avro `int` or `long`: zigzag, then base-128 little-endian, 1 to 10 bytes."""
    cdef uint8_t out[LONG_SIZE_MAX]
    return out[:put_long(out, value) - out]


def decode_long(bytes datum):
    """Return (value, bytes read). Raise MalformedAvro for any other bytes."""
    cdef const uint8_t* data = <const uint8_t*>datum
    cdef Reader reader = Reader(data, data + len(datum))
    cdef Status status = GOOD
    cdef int64_t value = get_long(&reader, &status)
    if status != GOOD:
        raise_malformed(status)
    return value, reader.at - data


def decode_bytes(bytes datum):
    """Return (value, bytes read) of an Avro `bytes` or `string`. Raise MalformedAvro for any other bytes."""
    cdef const uint8_t* data = <const uint8_t*>datum
    cdef Reader reader = Reader(data, data + len(datum))
    cdef Slice value = Slice(NULL, 0)
    cdef Status status = GOOD
    get_bytes(&reader, &value, &status)
    if status != GOOD:
        raise_malformed(status)
    return value.data[:value.size], reader.at - data
