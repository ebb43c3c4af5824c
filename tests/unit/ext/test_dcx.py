"""dcx: which payloads are data samples."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext import Extension, ExtensionError, PayloadTooLarge, Request
from ext.dcx import data_samples, register

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(samples=st.lists(JSON), indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_each_element_of_an_array_is_a_sample(
    samples: list[Any], indent: int | None, ascii_only: bool
) -> None:
    payload = json.dumps(samples, indent=indent, ensure_ascii=ascii_only).encode()
    assert [json.loads(sample) for sample in data_samples(payload)] == samples


@given(sample=st.dictionaries(st.text(), JSON) | st.integers() | st.booleans())
def test_one_object_number_or_boolean_is_one_sample(sample: Any) -> None:
    """DCX payloads may be one object, a number or a boolean instead of an array."""
    (only,) = data_samples(b" " + json.dumps(sample).encode() + b"\r\n")
    assert json.loads(only) == sample


def test_samples_are_the_bytes_of_the_device() -> None:
    """Numbers are not rounded, keys not sorted, spaces inside kept."""
    payload = b'[ 1.10, {"b": 1,\n"a":1e999} ,"\\u00e9" ]'
    assert data_samples(payload) == [b"1.10", b'{"b": 1,\n"a":1e999}', b'"\\u00e9"']


@pytest.mark.parametrize(
    ("payload", "reason_phrase"),
    [
        (b"", "Empty payload"),
        (b"  ", "Invalid JSON at byte 2"),
        (b"[1,,2]", "Invalid JSON at byte 3"),
        (b"[1, 2", "Invalid JSON at byte 5"),
        (b'{"a":}', "Invalid JSON at byte 5"),
        (b"[1]]", "Invalid JSON at byte 4"),
        (b"{} {}", "Invalid JSON at byte 4"),
        (b"plain text", "Invalid JSON at byte 0"),
        (b"\xef\xbb\xbf[]", "Invalid JSON at byte 0"),
        (b'["\xff"]', "Invalid UTF-8 at byte 2"),
        (b'{"\xc3": 1}', "Invalid UTF-8 at byte 2"),
        (b"[" * 100_000 + b"]" * 100_000, "JSON is nested too deep"),
        (b'{"a":' * 100_000, "JSON is nested too deep"),
        (b'"text"', "Expected an array, an object, a number or a boolean"),
        (b"null", "Expected an array, an object, a number or a boolean"),
    ],
)
def test_refused_payloads_say_where(payload: bytes, reason_phrase: str) -> None:
    with pytest.raises(ExtensionError) as caught:
        data_samples(payload)
    assert (caught.value.status_code, caught.value.reason_phrase) == (400, reason_phrase)


async def test_event_larger_than_nats_takes_is_413(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise PayloadTooLarge("too large")

    extension = Extension("dcx")
    register(extension)
    monkeypatch.setattr(extension, "publish", refuse)
    found = extension._routes.find("/json")
    assert found is not None
    request = Request(
        endpoint_id="ep",
        app_version_name="v1",
        resource_path="/json",
        request_id=1,
        payload=b"[1]",
        correlation_id="c",
        timestamp=0,
        deadline=None,
        config_name=None,
        parameters={},
    )
    with pytest.raises(ExtensionError, match="413"):
        await found[0].handler(request)  # type: ignore[misc]


@given(payload=st.binary())
def test_any_bytes_are_samples_or_refused(payload: bytes) -> None:
    with suppress(ExtensionError):
        for sample in data_samples(payload):
            json.loads(sample)
