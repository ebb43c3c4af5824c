"""Avro records: fastavro is the oracle, for every message type of ours."""

import io
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_ext.messages import MessageType, cdtp, cip, dstp, eme
from kaa_gateway.bus import cap, ecap, elce, tle
from kaa_gateway.wire.records import Type

MESSAGES = [
    each
    for module in (cap, cdtp, cip, dstp, ecap, elce, eme, tle)
    for each in vars(module).values()
    if isinstance(each, MessageType)
]
SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(),
    "bytes": st.binary(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
}


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Values of an Avro type."""
    if isinstance(schema, str):
        return SIMPLE[schema]
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
    "schema", ["double", ["null", "string", "int"], ["string", "int"], {"type": "enum", "symbols": ["A"]}]
)
def test_other_types_are_not_known(schema: Any) -> None:
    with pytest.raises(NotImplementedError):
        Type(schema)
