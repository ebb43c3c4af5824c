"""The Avro binary encoding of the types that 4/ESP uses: int, long, bytes, string, and unions with null.

The codec itself is inline in avro.pxd, so that esp.pyx compiles it in; this module gives it a Python face for tests
and names what can be wrong. Every other schema is fastavro's.

Source: Apache Avro 1.11 specification, "Binary Encoding".
"""

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


def encode_long(int64_t value):
    """Return an Avro `int` or `long`: zigzag, then base-128 little-endian, 1 to 10 bytes."""
    cdef uint8_t out[LONG_SIZE_MAX]
    return out[:put_long(out, value) - out]


def decode_long(bytes datum):
    """Return (value, bytes read). Raise MalformedAvro for any other bytes."""
    cdef const uint8_t* data = <const uint8_t*>datum
    cdef Reader reader = Reader(data, data + len(datum))
    cdef int64_t value = 0
    cdef Status status = get_long(&reader, &value)
    if status != GOOD:
        raise_malformed(status)
    return value, reader.at - data


def decode_bytes(bytes datum):
    """Return (value, bytes read) of an Avro `bytes` or `string`. Raise MalformedAvro for any other bytes."""
    cdef const uint8_t* data = <const uint8_t*>datum
    cdef Reader reader = Reader(data, data + len(datum))
    cdef Slice value = Slice(NULL, 0)
    cdef Status status = get_bytes(&reader, &value)
    if status != GOOD:
        raise_malformed(status)
    return value.data[:value.size], reader.at - data
