from libc.stdint cimport INT32_MAX, INT32_MIN, int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from kaa_gateway.wire.buffer cimport Slice

cdef enum:
    LONG_SIZE_MAX = 10  # bytes of the longest zigzag varint


# What a read can say. The names of MALFORMED_REASONS in avro.pyx follow this order.
cdef enum Status:
    GOOD = 0
    TRUNCATED
    OVERLONG_VARINT
    NEGATIVE_LENGTH
    BAD_UNION_BRANCH
    INT_OUT_OF_RANGE


cdef struct Reader:
    # The unread rest of a datum: [at, end). Borrowed from whoever holds the bytes.
    const uint8_t* at
    const uint8_t* end


cdef inline uint8_t* put_long(uint8_t* at, int64_t value) noexcept nogil:
    # Writes at most LONG_SIZE_MAX bytes, returns the position behind them.
    cdef uint64_t rest = (<uint64_t>value << 1) ^ <uint64_t>(value >> 63)
    while rest > 0x7F:
        at[0] = <uint8_t>(rest & 0x7F) | 0x80
        at += 1
        rest >>= 7
    at[0] = <uint8_t>rest
    return at + 1


cdef inline uint8_t* put_bytes(uint8_t* at, const uint8_t* data, Py_ssize_t size) noexcept nogil:
    # Avro `bytes` and `string`: at most LONG_SIZE_MAX + size bytes.
    at = put_long(at, size)
    if size:  # or `data` may be NULL, which memcpy is not to be given
        memcpy(at, data, <size_t>size)
    return at + size


cdef inline Status get_long(Reader* reader, int64_t* value) noexcept nogil:
    cdef uint64_t result = 0
    cdef uint8_t byte
    cdef int shift = 0
    if reader.at < reader.end and reader.at[0] < 0x80:  # one byte, as almost always
        byte = reader.at[0]
        reader.at += 1
        value[0] = <int64_t>(byte >> 1) ^ -<int64_t>(byte & 1)
        return GOOD
    while True:
        if reader.at >= reader.end:
            return TRUNCATED
        byte = reader.at[0]
        reader.at += 1
        if shift == 63 and byte > 1:
            return OVERLONG_VARINT
        result |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            return OVERLONG_VARINT
    value[0] = <int64_t>(result >> 1) ^ -<int64_t>(result & 1)
    return GOOD


cdef inline Status get_int(Reader* reader, int32_t* value) noexcept nogil:
    cdef int64_t wide = 0
    cdef Status status = get_long(reader, &wide)
    if status != GOOD:
        return status
    if not INT32_MIN <= wide <= INT32_MAX:
        return INT_OUT_OF_RANGE
    value[0] = <int32_t>wide
    return GOOD


cdef inline Status get_bytes(Reader* reader, Slice* value) noexcept nogil:
    # Avro `bytes` and `string`; the slice borrows from the reader's bytes.
    cdef int64_t size = 0
    cdef Status status = get_long(reader, &size)
    if status != GOOD:
        return status
    if size < 0:
        return NEGATIVE_LENGTH
    if size > reader.end - reader.at:
        return TRUNCATED
    value.data = reader.at
    value.size = <Py_ssize_t>size
    reader.at += size
    return GOOD


cdef inline Status get_branch(Reader* reader, int null_branch, bint* present) noexcept nogil:
    # The branch of a union of null and one other type; `null_branch` is the index of null, 0 or 1.
    cdef int64_t branch = 0
    cdef Status status = get_long(reader, &branch)
    if status != GOOD:
        return status
    if not 0 <= branch <= 1:
        return BAD_UNION_BRANCH
    present[0] = branch != null_branch
    return GOOD


cdef inline Status get_optional_bytes(Reader* reader, int null_branch, Slice* value) noexcept nogil:
    # A union of null and `bytes` or `string`; null gives a slice whose data is NULL.
    cdef bint present = False
    cdef Status status = get_branch(reader, null_branch, &present)
    if status != GOOD:
        return status
    if present:
        return get_bytes(reader, value)
    value.data = NULL
    value.size = 0
    return GOOD


cdef int raise_malformed(Status status) except -1
