"""Batch handlers: which requests come together, what becomes of each, and the bounds."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from kaa_ext import CallNext, Extension, ExtensionError, Request, Response
from kaa_ext.sdk import extension as sdk
from kaa_ext.testing import offline, until

from tests.unit.ext.sdk.test_extension import FakeConnection, extension, send


def take(service: Extension, *payloads: bytes) -> asyncio.Future[Any]:
    """Receive requests in one turn of the event loop, and wait for them later."""
    return asyncio.gather(*(send(service, payload=payload) for payload in payloads))


def statuses(connection: FakeConnection) -> list[int]:
    return [data.status_code for _, data, _ in connection.published]


async def test_requests_of_a_turn_come_together_in_order() -> None:
    service, connection = extension()
    lists: list[list[bytes]] = []

    @service.batch("/json")
    def collect(requests: list[Request]) -> list[bytes]:
        lists.append([request.payload for request in requests])
        return [request.payload + b"!" for request in requests]

    for payloads in ((b"1", b"2", b"3"), (b"4",)):
        await take(service, *payloads)
        await until(lambda: not service.running, "the answers")
    assert lists == [[b"1", b"2", b"3"], [b"4"]]
    assert [data.payload for _, data, _ in connection.published] == [b"1!", b"2!", b"3!", b"4!"]
    assert (service.stats["requests"], service.stats["responses"]) == (4, 4)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (lambda count: None, [200, 200, 200]),
        (lambda count: [None, ExtensionError(404), Response(201)], [200, 404, 201]),
        (lambda count: [b"x", ZeroDivisionError(), {"a": 1}], [200, 500, 200]),
        (lambda count: [None] * (count - 1), [500, 500, 500]),
        (lambda count: [None] * (count + 1), [500, 500, 500]),
        (lambda count: [b"x", "no payload", b"y"], [200, 500, 200]),
    ],
    ids=["none", "own results", "an error of ours", "too few", "too many", "a wrong type"],
)
async def test_each_request_has_its_own_result(
    results: Callable[[int], Any], expected: list[int], asynchronous: bool
) -> None:
    service, connection = extension()

    def collect(requests: list[Request]) -> Any:
        return results(len(requests))

    async def collect_later(requests: list[Request]) -> Any:
        await asyncio.sleep(0)
        return results(len(requests))

    service.batch("/json")(collect_later if asynchronous else collect)
    await take(service, b"1", b"2", b"3")
    await until(lambda: len(connection.published) == 3, "the answers")
    assert statuses(connection) == expected
    assert service.running == 0


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("error", "status"), [(ExtensionError(409, "No"), 409), (ZeroDivisionError(), 500)])
async def test_what_a_handler_raises_is_the_error_of_all(
    error: Exception, status: int, asynchronous: bool
) -> None:
    service, connection = extension()

    def collect(requests: list[Request]) -> None:
        raise error

    async def collect_later(requests: list[Request]) -> None:
        raise error

    service.batch("/json")(collect_later if asynchronous else collect)
    await take(service, b"1", b"2")
    await until(lambda: len(connection.published) == 2, "the answers")
    assert statuses(connection) == [status, status]


async def test_middleware_stands_around_each_request_of_a_batch() -> None:
    service, connection = extension()
    seen: list[tuple[bytes, int]] = []

    @service.middleware
    async def note(request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        seen.append((request.payload, response.status_code))
        return response

    @service.batch("/json")
    async def collect(requests: list[Request]) -> list[Any]:
        assert len(requests) == 2
        return [None, ExtensionError(400)]

    await take(service, b"1", b"2")
    assert seen == [(b"1", 200), (b"2", 400)]
    assert statuses(connection) == [200, 400]


async def test_a_list_has_at_most_as_many_requests_as_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "PENDING_MESSAGES", 5)
    service = Extension("svc", concurrency=3)
    lists: list[int] = []
    release = asyncio.Event()

    @service.batch("/json")
    async def collect(requests: list[Request]) -> None:
        lists.append(len(requests))
        await release.wait()

    async with offline(service) as gateway:
        for _ in range(10):
            await gateway.send("svc", "/json", request_id=1)
        await until(lambda: service.stats["overrun"] == 2, "two to be dropped")
        assert (service.running, service.waiting, lists) == (3, 5, [3])
        release.set()
        await until(lambda: service.stats["responses"] == 8, "the others")
        assert lists == [3, 3, 2]


async def test_a_drain_answers_the_batch_that_runs_and_those_that_wait() -> None:
    service = Extension("svc", concurrency=2)
    release = asyncio.Event()

    @service.batch("/json")
    async def collect(requests: list[Request]) -> None:
        await release.wait()

    async with offline(service) as gateway:
        for _ in range(5):
            await gateway.send("svc", "/json", request_id=1)
        await until(lambda: service.waiting == 3, "three to wait")
        stopping = asyncio.create_task(service.stop())
        await asyncio.sleep(0.02)
        assert not stopping.done()
        release.set()
        await stopping
    assert (service.stats["responses"], service.stats["abandoned"]) == (5, 0)


@pytest.mark.parametrize(
    ("respond", "answered"), [("requested", []), ("errors", [400]), ("always", [200, 400])]
)
async def test_requests_without_request_id_are_answered_as_registered(
    respond: Any, answered: list[int]
) -> None:
    service, connection = extension()
    service.batch("/json", respond=respond)(lambda requests: [None, ExtensionError(400)])
    await asyncio.gather(send(service, request_id=None), send(service, request_id=None))
    await until(lambda: not service.running, "the results")
    assert statuses(connection) == answered
    assert service.stats["unanswered"] == 2 - len(answered)


def test_a_path_has_one_handler() -> None:
    service, _ = extension()
    service.batch("/json")(lambda requests: None)
    with pytest.raises(ValueError, match="has a handler already"):
        service.handler("/json")(lambda request: None)
