"""`Extension.on_error`: which responses it is told of."""

import pytest
from kaa_ext import ExtensionError, Request, Response

from tests.unit.ext.sdk.test_extension import extension, send


def raising(error: Exception) -> object:
    raise error


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (lambda request: None, []),
        (lambda request: Response(399), []),
        (lambda request: Response(400, b"x", "Why"), [(400, "Why")]),
        (lambda request: raising(ExtensionError(403)), [(403, "Forbidden")]),
        (lambda request: raising(ZeroDivisionError()), [(500, "Internal Server Error")]),
    ],
)
@pytest.mark.parametrize("request_id", [7, None])
async def test_errors_alone_are_told_with_or_without_request_id(
    outcome: object, told: list[tuple[int, str]], request_id: int | None
) -> None:
    service, _ = extension()
    seen: list[tuple[str, int, str | None]] = []
    service.on_error(lambda request, status, reason: seen.append((request.resource_path, status, reason)))
    service.handler("/json")(outcome)  # type: ignore[type-var]
    await send(service, request_id=request_id)
    assert seen == [("/json", status, reason) for status, reason in told]


async def test_a_path_without_handler_is_told() -> None:
    service, _ = extension()
    seen: list[int] = []
    service.on_error(lambda request, status, reason: seen.append(status))
    await send(service, "/nowhere")
    assert seen == [404]


async def test_an_observer_that_fails_spoils_neither_the_answer_nor_the_other_observers() -> None:
    service, connection = extension()
    seen: list[int] = []

    def broken(request: Request, status: int, reason: str | None) -> None:
        raise ZeroDivisionError

    service.on_error(broken)
    service.on_error(lambda request, status, reason: seen.append(status))
    service.handler("/json")(lambda request: Response(404))
    await send(service)
    assert seen == [404]
    assert connection.answer().status_code == 404
    assert service.stats["failed"] == 1


async def test_requests_without_error_need_no_task() -> None:
    service, connection = extension()
    service.on_error(lambda request, status, reason: None)
    service.handler("/json")(lambda request: b"x")
    service._dispatcher.take(await datum(), "kaa.v1.replica.gw.esp.ExtensionData")
    assert not service._dispatcher.tasks
    assert connection.answer().payload == b"x"


async def datum() -> bytes:
    from kaa_gateway.wire.esp import encode_client_data

    return encode_client_data("cid", 1_000, 0, "app-v1", "ep", "/json", 7, b"")
