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


# Reading. What is at hand in one byte, as almost always, is read inline; the rest by functions that are given the
# positions and not the Reader, which so stays in registers. After a failure, the reader is at its end, `status` says
# what failed first, and values that are read from then on are meaningless.

cdef const uint8_t* read_long(const uint8_t* at, const uint8_t* end, int64_t* value, Status* status) noexcept nogil
cdef const uint8_t* read_bytes(const uint8_t* at, const uint8_t* end, Slice* value, Status* status) noexcept nogil


cdef inline const uint8_t* fail(const uint8_t* end, Status failure, Status* status) noexcept nogil:
    if status[0] == GOOD:
        status[0] = failure
    return end


cdef inline int64_t get_long(Reader* reader, Status* status) noexcept nogil:
    cdef int64_t value
    if reader.at < reader.end and reader.at[0] < 0x80:
        value = <int64_t>(reader.at[0] >> 1) ^ -<int64_t>(reader.at[0] & 1)
        reader.at += 1
    else:
        reader.at = read_long(reader.at, reader.end, &value, status)
    return value


cdef inline int32_t get_int(Reader* reader, Status* status) noexcept nogil:
    cdef int64_t value = get_long(reader, status)
    if not INT32_MIN <= value <= INT32_MAX:
        reader.at = fail(reader.end, INT_OUT_OF_RANGE, status)
    return <int32_t>value


cdef inline void get_bytes(Reader* reader, Slice* value, Status* status) noexcept nogil:
    # Avro `bytes` and `string`; the slice borrows from the reader's bytes.
    if reader.at < reader.end and reader.at[0] & 0x81 == 0 and reader.at[0] >> 1 < reader.end - reader.at:
        value.data = reader.at + 1
        value.size = reader.at[0] >> 1
        reader.at = value.data + value.size
    else:
        reader.at = read_bytes(reader.at, reader.end, value, status)


cdef inline bint get_branch(Reader* reader, int null_branch, Status* status) noexcept nogil:
    # The branch of a union of null and one other type; `null_branch` is the index of null, 0 or 1. False for null.
    cdef int64_t branch = get_long(reader, status)
    if not 0 <= branch <= 1:
        reader.at = fail(reader.end, BAD_UNION_BRANCH, status)
    return branch != null_branch


cdef inline void get_optional_bytes(Reader* reader, int null_branch, Slice* value, Status* status) noexcept nogil:
    # A union of null and `bytes` or `string`; null gives a slice whose data is NULL.
    if reader.end - reader.at >= 2 and reader.at[0] == (1 - null_branch) << 1 and reader.at[1] & 0x81 == 0 \
            and reader.at[1] >> 1 < reader.end - reader.at - 1:  # a short value, as almost always
        value.data = reader.at + 2
        value.size = reader.at[1] >> 1
        reader.at = value.data + value.size
    elif get_branch(reader, null_branch, status):
        get_bytes(reader, value, status)
    else:
        value.data = NULL
        value.size = 0


cdef int raise_malformed(Status status) except -1
