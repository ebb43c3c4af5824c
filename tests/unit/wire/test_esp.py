"""4/ESP messages against fastavro, both messages in both directions.

Source: 4/ESP, schemas 0004-client-data and 0004-extension-data (tests/support/schemas.py).
"""

import contextlib
from typing import Any

import pytest
from fastavro.schema import to_parsing_canonical_form
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kaa_gateway.errors import MalformedAvro
from kaa_gateway.wire.esp import (
    ClientData,
    ExtensionData,
    decode_client_data,
    decode_extension_data,
    encode_client_data,
    encode_extension_data,
)

from tests.support import schemas

INT32_MAX, INT32_MIN = 2**31 - 1, -(2**31)
INT64_MAX, INT64_MIN = 2**63 - 1, -(2**63)
MEBIBYTE = 1024 * 1024

# UTF-8 has no surrogates; everything else, NUL and what lies beyond the basic plane included, is a legal string.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ints = st.integers(INT32_MIN, INT32_MAX)
longs = st.integers(INT64_MIN, INT64_MAX)
payloads = st.binary(max_size=300)

client_data = st.builds(
    ClientData,
    texts,
    longs,
    longs,
    texts,
    st.none() | texts,
    texts,
    st.none() | ints,
    payloads,
    st.none() | texts,
)
extension_data = st.builds(
    ExtensionData, texts, longs, longs, st.none() | texts, st.none() | texts, st.none() | texts, texts,
    st.none() | ints, st.none() | payloads, ints, st.none() | texts,
)  # fmt: skip

CLIENT_DATA = ClientData("id", 1, 2, "app", "endpoint", "/json", 3, b"payload", "name")
EXTENSION_DATA = ExtensionData("id", 1, 2, "app", "dcx", "endpoint", "/json", 3, b"payload", 200, "OK")


def client_record(message: ClientData) -> dict[str, Any]:
    return {
        "correlationId": message.correlation_id,
        "timestamp": message.timestamp,
        "timeout": message.timeout,
        "appVersionName": message.app_version_name,
        "endpointId": message.endpoint_id,
        "resourcePath": message.resource_path,
        "requestId": message.request_id,
        "payload": message.payload,
        "configName": message.config_name,
    }


def extension_record(message: ExtensionData) -> dict[str, Any]:
    return {
        "correlationId": message.correlation_id,
        "timestamp": message.timestamp,
        "timeout": message.timeout,
        "appVersionName": message.app_version_name,
        "extensionInstanceName": message.extension_instance_name,
        "endpointId": message.endpoint_id,
        "resourcePath": message.resource_path,
        "requestId": message.request_id,
        "payload": message.payload,
        "statusCode": message.status_code,
        "reasonPhrase": message.reason_phrase,
    }


def written_by_fastavro(message: ClientData | ExtensionData) -> bytes:
    if isinstance(message, ClientData):
        return schemas.encode("0004-client-data", client_record(message))
    return schemas.encode("0004-extension-data", extension_record(message))


@pytest.mark.parametrize("name", schemas.OURS)
def test_our_restatement_is_the_rfcs_schema(name: str) -> None:
    """Proves something only where the RFCs lie beside the checkout; elsewhere `rfc_schema` is our restatement."""
    rfc = schemas.rfc_schema(name)
    assert to_parsing_canonical_form(schemas.OURS[name]) == to_parsing_canonical_form(rfc)
    assert [field.get("default", "required") for field in schemas.OURS[name]["fields"]] == [
        field.get("default", "required") for field in rfc["fields"]
    ]


@example(CLIENT_DATA._replace(request_id=INT32_MAX, timestamp=INT64_MAX, timeout=INT64_MIN))
@example(CLIENT_DATA._replace(request_id=INT32_MIN, endpoint_id=None, config_name=None, payload=b""))
@example(ClientData("", 0, 0, "", "", "", 0, b"", ""))
@given(client_data)
def test_client_data_both_ways(message: ClientData) -> None:
    datum = encode_client_data(*message)
    assert datum == written_by_fastavro(message)
    assert schemas.decode("0004-client-data", datum) == client_record(message)
    assert decode_client_data(datum) == message


@example(EXTENSION_DATA._replace(status_code=INT32_MAX, request_id=INT32_MIN, timestamp=INT64_MIN))
@example(EXTENSION_DATA._replace(status_code=INT32_MIN, request_id=INT32_MAX, payload=None))
@example(ExtensionData("", 0, 0, None, None, None, "", None, None, 0, None))
@given(extension_data)
def test_extension_data_both_ways(message: ExtensionData) -> None:
    datum = encode_extension_data(*message)
    assert datum == written_by_fastavro(message)
    assert schemas.decode("0004-extension-data", datum) == extension_record(message)
    assert decode_extension_data(datum) == message


@pytest.mark.parametrize("endpoint_id", [None, "", "Gerät-7-端末-📟"])
@pytest.mark.parametrize("request_id", [None, 0, INT32_MIN, INT32_MAX])
@pytest.mark.parametrize("config_name", [None, "", "имя"])
def test_every_union_branch_of_client_data(
    endpoint_id: str | None, request_id: int | None, config_name: str | None
) -> None:
    message = CLIENT_DATA._replace(endpoint_id=endpoint_id, request_id=request_id, config_name=config_name)
    assert encode_client_data(*message) == written_by_fastavro(message)
    assert decode_client_data(written_by_fastavro(message)) == message


@pytest.mark.parametrize("field", [None, "", "Gerät-7-端末-📟"])
@pytest.mark.parametrize("request_id", [None, 0, INT32_MIN, INT32_MAX])
@pytest.mark.parametrize("payload", [None, b"", b"\0\xff"])
def test_every_union_branch_of_extension_data(
    field: str | None, request_id: int | None, payload: bytes | None
) -> None:
    for message in (
        EXTENSION_DATA._replace(app_version_name=field),
        EXTENSION_DATA._replace(extension_instance_name=field),
        EXTENSION_DATA._replace(endpoint_id=field),
        EXTENSION_DATA._replace(reason_phrase=field),
        EXTENSION_DATA._replace(request_id=request_id, payload=payload),
    ):
        assert encode_extension_data(*message) == written_by_fastavro(message)
        assert decode_extension_data(written_by_fastavro(message)) == message


@pytest.mark.parametrize("size", [0, 63, 64, 8191, 8192, MEBIBYTE])
def test_payload_sizes_where_the_length_grows_by_a_byte(size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    up = CLIENT_DATA._replace(payload=payload)
    down = EXTENSION_DATA._replace(payload=payload)
    assert encode_client_data(*up) == written_by_fastavro(up)
    assert decode_client_data(written_by_fastavro(up)) == up
    assert encode_extension_data(*down) == written_by_fastavro(down)
    assert decode_extension_data(written_by_fastavro(down)) == down


def test_truncation_at_every_byte_is_malformed() -> None:
    up, down = written_by_fastavro(CLIENT_DATA), written_by_fastavro(EXTENSION_DATA)
    for size in range(len(up)):
        with pytest.raises(MalformedAvro, match="avro_truncated"):
            decode_client_data(up[:size])
    for size in range(len(down)):
        with pytest.raises(MalformedAvro, match="avro_truncated"):
            decode_extension_data(down[:size])


@given(st.binary(min_size=1, max_size=20))
def test_bytes_behind_the_datum_are_ignored(behind: bytes) -> None:
    """As an Avro reader does with fields that a newer writer has appended."""
    assert decode_client_data(written_by_fastavro(CLIENT_DATA) + behind) == CLIENT_DATA
    assert decode_extension_data(written_by_fastavro(EXTENSION_DATA) + behind) == EXTENSION_DATA


@settings(max_examples=300)
@given(st.sampled_from([CLIENT_DATA, EXTENSION_DATA]), st.data())
def test_corrupted_bytes_are_read_or_malformed(
    message: ClientData | ExtensionData, data: st.DataObject
) -> None:
    datum = bytearray(written_by_fastavro(message))
    for at in data.draw(st.lists(st.integers(0, len(datum) - 1), min_size=1, max_size=4)):
        datum[at] = data.draw(st.integers(0, 255))
    for decode in (decode_client_data, decode_extension_data):
        with contextlib.suppress(MalformedAvro):
            decode(datum)


def replaced(datum: bytes, old: bytes, new: bytes) -> bytes:
    assert datum.count(old) == 1
    return datum.replace(old, new)


UP, DOWN = written_by_fastavro(CLIENT_DATA), written_by_fastavro(EXTENSION_DATA)


@pytest.mark.parametrize(
    ("datum", "reason"),
    [
        (b"\x01" + UP[1:], "avro_negative_length"),
        (b"\xff" * 10 + UP[1:], "avro_overlong_varint"),
        (replaced(UP, b"\x00\x10endpoint", b"\x04\x10endpoint"), "avro_bad_union_branch"),
        (replaced(UP, b"\x00\x10endpoint", b"\x01\x10endpoint"), "avro_bad_union_branch"),
        (replaced(UP, b"/json\x00\x06", b"/json\x00\xfe\xff\xff\xff\x1f"), "avro_int_out_of_range"),
        (replaced(UP, b"/json\x00\x06", b"/json\x00\x81\x80\x80\x80\x10"), "avro_int_out_of_range"),
        (replaced(UP, b"/json", b"/js\xffn"), "avro_not_utf8"),
        (replaced(UP, b"/json", b"\xed\xa0\x80on"), "avro_not_utf8"),  # a surrogate
    ],
)
def test_malformed_client_data(datum: bytes, reason: str) -> None:
    with pytest.raises(MalformedAvro) as failure:
        decode_client_data(datum)
    assert failure.value.reason == reason


@pytest.mark.parametrize(
    ("datum", "reason"),
    [
        (b"\x01" + DOWN[1:], "avro_negative_length"),
        (replaced(DOWN, b"\x00\x06dcx", b"\x04\x06dcx"), "avro_bad_union_branch"),
        (replaced(DOWN, b"/json\x00\x06", b"/json\x00\xfe\xff\xff\xff\x1f"), "avro_int_out_of_range"),
        (replaced(DOWN, b"payload\x90\x03", b"payload\x80\x80\x80\x80\x10"), "avro_int_out_of_range"),
        (replaced(DOWN, b"\x02\x04OK", b"\x02\x04\xc0\xaf"), "avro_not_utf8"),  # overlong
    ],
)
def test_malformed_extension_data(datum: bytes, reason: str) -> None:
    with pytest.raises(MalformedAvro) as failure:
        decode_extension_data(datum)
    assert failure.value.reason == reason


@pytest.mark.parametrize("request_id", [INT32_MAX + 1, INT32_MIN - 1, 2**70])
def test_a_request_id_that_does_not_fit_is_not_written(request_id: int) -> None:
    with pytest.raises(OverflowError):
        encode_client_data(*CLIENT_DATA._replace(request_id=request_id))
    with pytest.raises(OverflowError):
        encode_extension_data(*EXTENSION_DATA._replace(request_id=request_id))
    with pytest.raises(OverflowError):
        encode_extension_data(*EXTENSION_DATA._replace(status_code=request_id))


def test_any_contiguous_bytes_like_object_is_read() -> None:
    assert decode_client_data(memoryview(bytearray(UP))) == CLIENT_DATA
    assert decode_extension_data(bytearray(DOWN)) == EXTENSION_DATA
