"""Avro records: fastavro is the oracle, for every message type of ours."""

import io
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_ext.messages import MessageType, cdtp, cip, dstp, eme, epmmp, tstp
from kaa_gateway.bus import cap, ecap, elce, tle
from kaa_gateway.wire.records import Type

MESSAGES = [
    each
    for module in (cap, cdtp, cip, dstp, ecap, elce, eme, tle, tstp)
    for each in vars(module).values()
    if isinstance(each, MessageType)
] + [kind.type for exchange in epmmp.EXCHANGES for kind in exchange]
SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(),
    "bytes": st.binary(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "boolean": st.booleans(),
    "double": st.floats(allow_nan=False),
}


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Values of an Avro type."""
    if isinstance(schema, str):
        return SIMPLE[schema]
    if isinstance(schema, list) and len(schema) > 2:
        # fastavro would write a float as an Avro float, which loses digits.
        return (
            st.one_of(*(values(each) for each in schema if each not in ("null", "float", "double")))
            | st.none()
        )
    if isinstance(schema, list):
        return st.none() | values(next(each for each in schema if each != "null"))
    match schema["type"]:
        case "array":
            return st.lists(values(schema["items"]), max_size=5)
        case "map":
            return st.dictionaries(st.text(), values(schema["values"]), max_size=5)
        case "record":
            return st.fixed_dictionaries({field["name"]: values(field["type"]) for field in schema["fields"]})
    return SIMPLE[schema["type"]]


@given(data=st.data(), kind=st.sampled_from(MESSAGES))
def test_every_message_is_as_fastavro_writes_it(data: st.DataObject, kind: MessageType) -> None:
    value = data.draw(values(kind.schema))
    expected = io.BytesIO()
    fastavro.schemaless_writer(expected, kind.schema, value)
    assert Type(kind.schema).encode(value) == expected.getvalue()


def test_a_field_without_value_has_its_default() -> None:
    fields = [
        {"name": "a", "type": "string"},
        {"name": "b", "type": "long", "default": 7},
        {"name": "c", "type": ["null", "string"], "default": None},
    ]
    record = Type({"type": "record", "name": "r", "fields": fields})
    assert record.encode({"a": "x"}) == b"\x02x\x0e\x00"
    with pytest.raises(KeyError, match="a"):
        record.encode({"b": 1})


@pytest.mark.parametrize(
    ("value", "datum"),
    [
        (True, b"\x00\x01"),
        (False, b"\x00\x00"),
        (-1, b"\x02\x01"),
        (2**31, b"\x04\x80\x80\x80\x80\x10"),
        (1.5, b"\x08\x00\x00\x00\x00\x00\x00\xf8\x3f"),
        (2**63, b"\x08\x00\x00\x00\x00\x00\x00\xe0\x43"),
        ("a", b"\x0a\x02a"),
        (b"a", b"\x0c\x02a"),
        (None, b"\x0e"),
    ],
)
def test_the_type_of_a_value_decides_in_a_union(value: Any, datum: bytes) -> None:
    union = ["boolean", "int", "long", "float", "double", "string", "bytes", "null"]
    record = {"type": "record", "name": "r", "fields": [{"name": "a", "type": union}]}
    assert Type(record).encode({"a": value}) == datum
    assert fastavro.schemaless_reader(io.BytesIO(datum), record, None) == {"a": value}


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [
        ("string", b"x", TypeError),
        ("string", None, TypeError),
        ("string", "\ud800", UnicodeEncodeError),
        ("bytes", "x", TypeError),
        ("bytes", bytearray(b"x"), TypeError),
        ("int", 2**31, OverflowError),
        ("int", -(2**31) - 1, OverflowError),
        ("int", "1", TypeError),
        ("long", 2**63, OverflowError),
        ("double", "1", TypeError),
        ("double", 10**400, OverflowError),
        (["int", "string"], b"x", TypeError),
        (["int", "string"], None, TypeError),
        (["int", "string"], True, TypeError),
        (["int", "string"], 2**31, TypeError),
        (["boolean", "bytes", "null"], [1], TypeError),
        (["null", "string"], 1, TypeError),
        ({"type": "array", "items": "bytes"}, 5, TypeError),
        ({"type": "array", "items": "bytes"}, [1], TypeError),
        ({"type": "map", "values": "string"}, {1: "x"}, TypeError),
        ({"type": "map", "values": "string"}, [1], AttributeError),
    ],
)
def test_values_that_do_not_fit_are_refused(kind: Any, value: Any, error: type[Exception]) -> None:
    record = Type({"type": "record", "name": "r", "fields": [{"name": "a", "type": kind}]})
    with pytest.raises(error):
        record.encode({"a": value})


@pytest.mark.parametrize(
    "schema",
    [
        "float",
        ["null", "string", {"type": "array", "items": "int"}],
        [{"type": "map", "values": "int"}, "int"],
        {"type": "enum", "symbols": ["A"]},
    ],
)
def test_other_types_are_not_known(schema: Any) -> None:
    with pytest.raises(NotImplementedError):
        Type(schema)
