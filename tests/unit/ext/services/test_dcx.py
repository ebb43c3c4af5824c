"""dcx: which payloads are data samples."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_ext import Extension, ExtensionError, PayloadTooLarge, Response
from kaa_ext.messages import dstp
from kaa_ext.services.dcx import Settings, data_samples, plain_sample, register
from kaa_ext.testing import Gateway, offline, until

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
    async with offline(extension) as gateway:
        assert (await gateway.request("dcx", "/json", b"[1]")).status_code == 413


@given(payload=st.binary())
def test_any_bytes_are_samples_or_refused(payload: bytes) -> None:
    with suppress(ExtensionError):
        for sample in data_samples(payload):
            json.loads(sample)


@pytest.mark.parametrize(
    ("payload", "sample"),
    [
        (b"21.50", b'{"t":21.50}'),
        (b" 1 ", b'{"t":1}'),
        (b"true", b'{"t":true}'),
        (b'"on"', b'{"t":"on"}'),
        (b"on", b'{"t":"on"}'),
        (b"21,5 \xc2\xb0C", '{"t":"21,5 °C"}'.encode()),
        (b"{broken", b'{"t":"{broken"}'),
    ],
)
def test_a_bare_value_is_a_sample_of_its_metric(payload: bytes, sample: bytes) -> None:
    assert plain_sample("t", payload) == sample


@pytest.mark.parametrize(
    ("metric", "payload", "reason_phrase"),
    [
        ("t", b"", "Empty payload"),
        ("t", b" ", "Empty payload"),
        ("t", b"[1]", "Expected one value; objects and arrays go to /json"),
        ("t", b"{}", "Expected one value; objects and arrays go to /json"),
        ("t", b"a\xff", "Invalid UTF-8 at byte 1"),
        ("t" * 257, b"1", "The name of a metric has at most 256 characters"),
    ],
)
def test_refused_bare_values(metric: str, payload: bytes, reason_phrase: str) -> None:
    with pytest.raises(ExtensionError) as caught:
        plain_sample(metric, payload)
    assert (caught.value.status_code, caught.value.reason_phrase) == (400, reason_phrase)


@given(metric=st.text(max_size=20), payload=st.binary())
def test_any_bare_value_is_a_json_object_or_refused(metric: str, payload: bytes) -> None:
    with suppress(ExtensionError):
        assert list(json.loads(plain_sample(metric, payload))) == [metric]


async def confirm(gateway: Gateway, *outcomes: tuple[str, int, str | None]) -> Response:
    """Send a batch, answer its event as these receivers, and return what the device is told."""
    heard = await gateway.listen(dstp.event_subject("dcx"))
    asking = asyncio.create_task(gateway.request("dcx", "/json", b"[1]"))
    await until(lambda: bool(heard), "the event")
    for receiver, status_code, reason_phrase in outcomes:
        datum = dstp.DATA_SAMPLES_PROCESSED.encode(
            correlation_id=dstp.DATA_SAMPLES_EVENT.decode(heard[0].data)["correlationId"],
            receiverServiceInstanceName=receiver,
            statusCode=status_code,
            reasonPhrase=reason_phrase,
        )
        await gateway.publish(heard[0].reply, datum)
    return await asking


@pytest.mark.parametrize(
    ("outcomes", "status_code", "reason_phrase"),
    [
        ([("a", 200, None), ("b", 201, None)], 200, None),
        ([("b", 200, None), ("a", 200, None), ("c", 500, None)], 200, None),
        ([("a", 200, None), ("b", 422, "No room")], 422, "No room"),
        ([("b", 302, None)], 502, "Bad Gateway"),
        ([("a", 200, None), ("a", 200, None), ("c", 200, None)], 504, "Not confirmed in time by b"),
        ([], 504, "Not confirmed in time by a, b"),
    ],
)
async def test_receivers_that_must_confirm(
    outcomes: list[tuple[str, int, str | None]], status_code: int, reason_phrase: str | None
) -> None:
    extension = Extension("dcx")
    patience = 0.2 if status_code == 504 else 30
    register(extension, Settings(must_confirm=frozenset({"a", "b"}), confirmation_timeout=patience))
    async with offline(extension) as gateway:
        answer = await confirm(gateway, *outcomes)
        assert (answer.status_code, answer.reason_phrase) == (status_code, reason_phrase)
        assert await gateway.listen(dstp.event_subject("dcx")) == []


async def test_without_any_receiver_the_device_is_told_at_once() -> None:
    for must_confirm, status_code in ((frozenset({"a"}), 503), (frozenset[str](), 200)):
        extension = Extension("dcx")
        register(extension, Settings(must_confirm=must_confirm, confirmation_timeout=60))
        async with offline(extension) as gateway:
            assert (await gateway.request("dcx", "/json", b"[1]")).status_code == status_code
            assert extension.stats["failed"] == 0


async def test_a_drain_waits_for_confirmations() -> None:
    """The subject on which they come in stays open after that of requests is closed."""
    extension = Extension("dcx")
    register(extension, Settings(must_confirm=frozenset({"a"}), confirmation_timeout=30))
    async with offline(extension) as gateway:
        heard = await gateway.listen(dstp.event_subject("dcx"))
        asking = asyncio.create_task(gateway.request("dcx", "/json", b"[1]"))
        await until(lambda: bool(heard), "the event")
        stopping = asyncio.create_task(extension.stop())
        await asyncio.sleep(0)
        correlation_id = dstp.DATA_SAMPLES_EVENT.decode(heard[0].data)["correlationId"]
        datum = dstp.DATA_SAMPLES_PROCESSED.encode(
            correlation_id=correlation_id, receiverServiceInstanceName="a", statusCode=200
        )
        await gateway.publish(heard[0].reply, datum)
        assert (await asking).status_code == 200
        await stopping


async def test_malformed_confirmations_are_counted() -> None:
    extension = Extension("dcx")
    register(extension)
    async with offline(extension) as gateway:
        await gateway.publish(dstp.reply_subject(extension.replica_id), b"\x01")
        await until(lambda: extension.stats["failed"] == 1, "the count")
        assert (await gateway.request("dcx", "/json", b"[1]")).status_code == 200
