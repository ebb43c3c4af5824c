"""Avro primitives: the vectors of the specification, and fastavro as the oracle.

Source: Apache Avro 1.11 specification, "Binary Encoding", "Primitive Types".
"""

import io
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_gateway.errors import MalformedAvro
from kaa_gateway.wire.avro import MALFORMED_REASONS, decode_bytes, decode_long, encode_long

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)

LONG = fastavro.parse_schema({"type": "long"})
BYTES = fastavro.parse_schema({"type": "bytes"})

LONG_VECTORS = [
    # The table of the specification ...
    (0, "00"),
    (-1, "01"),
    (1, "02"),
    (-2, "03"),
    (2, "04"),
    (-64, "7f"),
    (64, "8001"),
    # ... and the ends of what fits each number of bytes.
    (63, "7e"),
    (-65, "8101"),
    (8191, "fe7f"),
    (-8192, "ff7f"),
    (8192, "808001"),
    (2**31 - 1, "feffffff0f"),
    (-(2**31), "ffffffff0f"),
    (INT64_MAX, "feffffffffffffffff01"),
    (INT64_MIN, "ffffffffffffffffff01"),
]

longs = st.integers(INT64_MIN, INT64_MAX)


def written_by_fastavro(schema: Any, value: object) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue()


@pytest.mark.parametrize(("value", "datum"), LONG_VECTORS)
def test_long_vectors(value: int, datum: str) -> None:
    assert encode_long(value).hex() == datum
    assert decode_long(bytes.fromhex(datum)) == (value, len(datum) // 2)


@given(longs)
def test_long_is_written_as_fastavro_writes_it(value: int) -> None:
    assert encode_long(value) == written_by_fastavro(LONG, value)


@given(longs, st.binary(max_size=16))
def test_long_is_read_as_fastavro_wrote_it_and_no_further(value: int, behind: bytes) -> None:
    datum = written_by_fastavro(LONG, value)
    assert decode_long(datum + behind) == (value, len(datum))


@pytest.mark.parametrize("value", [INT64_MAX + 1, INT64_MIN - 1])
def test_long_of_more_than_64_bits_is_not_written(value: int) -> None:
    with pytest.raises(OverflowError):
        encode_long(value)


def test_padded_varint_is_read() -> None:
    """The specification does not ask for the shortest form."""
    assert decode_long(bytes.fromhex("828000")) == (1, 3)
    assert decode_long(bytes.fromhex("828000") + bytes(8)) == (1, 3)
    assert decode_long(bytes.fromhex("82808080808080808000")) == (1, 10)


@given(st.binary(max_size=300), st.binary(max_size=8))
def test_bytes_are_read_as_fastavro_wrote_them_and_no_further(value: bytes, behind: bytes) -> None:
    datum = written_by_fastavro(BYTES, value)
    assert decode_bytes(datum + behind) == (value, len(datum))


def test_bytes_vector() -> None:
    """The specification's example: the string "foo"."""
    assert decode_bytes(bytes.fromhex("06666f6f")) == (b"foo", 4)


@pytest.mark.parametrize(
    ("datum", "reason"),
    [
        ("", "avro_truncated"),
        ("80", "avro_truncated"),
        ("ffffffffffffffffff", "avro_truncated"),
        # The tenth byte holds one bit, and there is no eleventh.
        ("ffffffffffffffffff02", "avro_overlong_varint"),
        ("ffffffffffffffffff7f", "avro_overlong_varint"),
        ("ffffffffffffffffffff01", "avro_overlong_varint"),
        ("8080808080808080808000", "avro_overlong_varint"),
    ],
)
def test_malformed_long(datum: str, reason: str) -> None:
    with pytest.raises(MalformedAvro) as failure:
        decode_long(bytes.fromhex(datum))
    assert failure.value.reason == reason


@pytest.mark.parametrize(
    ("datum", "reason"),
    [
        ("", "avro_truncated"),
        ("02", "avro_truncated"),
        ("0661", "avro_truncated"),
        ("feffffffffffffffff01", "avro_truncated"),  # 2**63 - 1 bytes: no sum with it may overflow
        ("feffffffffffffffff0161", "avro_truncated"),
        ("01", "avro_negative_length"),
        ("ffffffffffffffffff01", "avro_negative_length"),
        ("ffffffffffffffffff02", "avro_overlong_varint"),
    ],
)
def test_malformed_bytes(datum: str, reason: str) -> None:
    with pytest.raises(MalformedAvro) as failure:
        decode_bytes(bytes.fromhex(datum))
    assert failure.value.reason == reason


def test_reasons_are_metric_labels() -> None:
    assert len(set(MALFORMED_REASONS)) == len(MALFORMED_REASONS)
    assert all(reason.startswith("avro_") for reason in MALFORMED_REASONS[1:])
