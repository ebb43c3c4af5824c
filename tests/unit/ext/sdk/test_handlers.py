"""What a handler may look like: typed payloads, values that become JSON, streams, middleware."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_ext import CallNext, Extension, ExtensionError, Request, Response
from kaa_ext.sdk.metrics import Metrics
from kaa_ext.sdk.middleware import log_requests
from kaa_ext.sdk.payloads import compact
from kaa_ext.testing import offline, until
from prometheus_client import generate_latest
from structlog.testing import capture_logs


class Target(msgspec.Struct, forbid_unknown_fields=True):
    degrees: float
    room: str = "hall"


class Nothing(msgspec.Struct):
    observe: bool | None = None


def typed() -> Extension:
    extension = Extension("svc")

    @extension.handler("/target")
    async def set_target(request: Request, target: Target) -> Target:
        return Target(target.degrees + 1, target.room)

    @extension.handler("/list")
    def make_list(request: Request, numbers: list[int]) -> list[int]:
        return sorted(numbers)

    @extension.handler("/nothing")
    def nothing(request: Request, body: Nothing) -> dict[str, Any]:
        return {"observe": body.observe}

    return extension


async def test_structs_in_and_out() -> None:
    async with offline(typed()) as gateway:
        answer = await gateway.request("svc", "/target", b' {"degrees": 20} ')
        assert (answer.status_code, json.loads(answer.payload or b"")) == (
            200,
            {"degrees": 21.0, "room": "hall"},
        )
        assert (await gateway.request("svc", "/list", [3, 1])).payload == b"[1,3]"
        assert (await gateway.request("svc", "/nothing")).payload == b'{"observe":null}'


@pytest.mark.parametrize(
    ("resource_path", "payload", "reason_phrase"),
    [
        ("/target", b"", "Object missing required field degrees"),
        ("/target", b"{}", "Object missing required field degrees"),
        ("/target", b'{"degrees": "warm"}', "Expected float, got str - at degrees"),
        ("/target", b'{"degrees": 1, "x": 2}', "Object contains unknown field x"),
        ("/target", b"[]", "Expected object, got array"),
        ("/target", b'{"degrees": }', "Invalid JSON at byte 12"),
        ("/target", b'{"degrees": 1', "Invalid JSON at byte 13"),
        ("/target", b'{"degrees": 1, "room": "\xff"}', "Invalid UTF-8 at byte 24"),
        ("/list", b"", "Empty payload"),
        ("/list", b"[1, true]", "Expected int, got bool - at $[1]"),
        ("/list", b"[" * 100_000, "Expected int, got array - at $[0]"),
    ],
)
async def test_bad_input_is_400_with_the_reason(
    resource_path: str, payload: bytes, reason_phrase: str
) -> None:
    async with offline(typed()) as gateway:
        answer = await gateway.request("svc", resource_path, payload)
        assert (answer.status_code, answer.reason_phrase) == (400, reason_phrase)


def test_handlers_with_other_parameters_are_refused_where_they_are_registered() -> None:
    extension = Extension("svc")
    with pytest.raises(TypeError, match=r"expected parameters \(request\) or"):
        extension.handler("/a")(lambda request, body: None)
    with pytest.raises(TypeError, match=r"expected parameters \(request\) or"):
        extension.handler("/b")(lambda: None)

    def unknown(request: Request, body: "Elsewhere") -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    with pytest.raises(TypeError, match="must be defined at module level"):
        extension.handler("/c")(unknown)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_compact_changes_nothing_but_space(value: Any) -> None:
    assert json.loads(compact(json.dumps(value, indent=2).encode())) == value


def test_compact_keeps_numbers_as_they_are() -> None:
    assert compact(b'{ "a" : 1.10, "b": 1e400 }') == b'{"a":1.10,"b":1e400}'
    with pytest.raises(ExtensionError):
        compact(b"{")


async def test_a_stream_answers_with_its_first_item_and_pushes_the_others() -> None:
    extension = Extension("svc")
    release = asyncio.Event()

    @extension.handler("/count")
    async def count(request: Request) -> AsyncIterator[dict[str, int]]:
        yield {"n": 1}
        yield {"n": 2}
        await release.wait()
        yield {"n": 3}

    @extension.handler("/none")
    async def none(request: Request) -> AsyncIterator[bytes]:
        if request.endpoint_id is None:
            yield b""

    @extension.handler("/refuse")
    async def refuse(request: Request) -> AsyncIterator[bytes]:
        if request.endpoint_id:
            raise ExtensionError(409)
        yield b""

    async with offline(extension) as gateway:
        assert (await gateway.request("svc", "/count", endpoint_id="ep")).payload == b'{"n":1}'
        (second,) = await gateway.next_pushes(1)
        release.set()
        (third,) = await gateway.next_pushes(1, after=1)
        assert [push.json() for push in (second, third)] == [{"n": 2}, {"n": 3}]
        assert {(push.endpoint_id, push.resource_path) for push in (second, third)} == {("ep", "/count")}
        assert second.push_id != third.push_id
        assert (await gateway.request("svc", "/none")).payload == b""
        assert (await gateway.request("svc", "/refuse")).status_code == 409


async def test_a_drain_ends_a_stream_after_the_item_that_it_is_at() -> None:
    extension = Extension("svc")

    @extension.handler("/count")
    async def count(request: Request) -> AsyncIterator[bytes]:
        while True:
            yield b"1"
            await asyncio.sleep(0.01)

    async with offline(extension) as gateway:
        await gateway.request("svc", "/count")
        await gateway.next_pushes(2)
        await extension.stop()
        assert extension.stats["abandoned"] == 0


async def test_middleware_stands_around_handlers_in_order() -> None:
    extension = typed()
    seen: list[Any] = []

    @extension.middleware
    async def outer(request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        seen.append((request.route, response.status_code))
        return response

    @extension.middleware
    async def guard(request: Request, call_next: CallNext) -> Response:
        if request.endpoint_id == "stranger":
            raise ExtensionError(403)
        return await call_next(request)

    async with offline(extension) as gateway:
        assert (await gateway.request("svc", "/list", [1])).payload == b"[1]"
        assert (await gateway.request("svc", "/list", b"x")).status_code == 400
        assert (await gateway.request("svc", "/list", [1], endpoint_id="stranger")).status_code == 403
    assert seen == [("/list", 200), ("/list", 400)]


async def test_log_and_metrics() -> None:
    extension = typed()
    metrics = Metrics([extension])
    extension.middleware(log_requests)

    @extension.handler("/broken/{x}")
    def broken(request: Request) -> bytes:
        raise ZeroDivisionError

    with capture_logs() as lines:
        async with offline(extension) as gateway:
            await gateway.request("svc", "/list", [1])
            await gateway.request("svc", "/list", b'"s3cret"')
            await gateway.request("svc", "/broken/1")
            await gateway.request("svc", "/broken/2")
            text = generate_latest(metrics.registry).decode()
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["log_level"], line["status"]) for line in requests] == [
        ("debug", 200), ("info", 400), ("warning", 500), ("warning", 500),
    ]  # fmt: skip
    assert "s3cret" not in str(lines)
    assert 'kaa_ext_requests_total{extension="svc",route="/list",status="400"} 1.0' in text
    assert 'kaa_ext_requests_total{extension="svc",route="/broken/{x}",status="500"} 2.0' in text
    assert 'kaa_ext_request_seconds_count{extension="svc",route="/list"} 2.0' in text
    assert 'kaa_ext_events_total{event="failed",extension="svc"} 2.0' in text


async def test_connectivity_events_reach_one_replica_each() -> None:
    replicas = [Extension("svc") for _ in range(2)]
    seen: list[tuple[bool, str, str]] = []
    for extension in replicas:

        @extension.on_connectivity
        async def note(event: Any) -> None:
            seen.extend((event.connected, endpoint, event.gateway_replica_id) for endpoint in event.endpoints)

    async with offline(*replicas, replica_id="gw-1") as gateway:
        await gateway.connect("a", "b")
        await gateway.disconnect("a")
        await until(lambda: len(seen) == 3, "the events")
        assert sorted(seen) == [(False, "a", "gw-1"), (True, "a", "gw-1"), (True, "b", "gw-1")]


async def test_the_request_names_the_gateway_that_it_came_through() -> None:
    extension = Extension("svc")
    extension.handler("/who")(lambda request: (request.gateway_replica_id or "").encode())
    async with offline(extension, replica_id="gw-7") as gateway:
        assert (await gateway.request("svc", "/who")).payload == b"gw-7"
