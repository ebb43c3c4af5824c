"""Middleware for traced requests only. Others need no task for it; the order is that of registration."""

import asyncio

from kaa_ext import CallNext, Request, Response
from kaa_gateway.wire.esp import encode_client_data

from tests.unit.ext.sdk.test_extension import REPLY, extension

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
DATUM = encode_client_data("cid", 1_000, 0, "app-v1", "ep", "/json", 7, b"")


async def test_only_traced_requests_pass_through_it() -> None:
    service, connection = extension()
    seen: list[str | None] = []

    async def trace(request: Request, call_next: CallNext) -> Response:
        seen.append(request.trace_parent)
        return await call_next(request)

    service.middleware(trace, only_traced=True)
    service.handler("/json")(lambda request: b"x")
    service._dispatcher.take(DATUM, REPLY)
    assert not service._dispatcher.tasks
    assert len(connection.published) == 1
    service._dispatcher.take(DATUM, REPLY, TRACE)
    await asyncio.wait(service._dispatcher.tasks)
    assert len(connection.published) == 2
    assert seen == [TRACE]


async def test_it_stands_among_other_middleware_in_the_order_of_registration() -> None:
    service, connection = extension()
    seen: list[str] = []

    def layer(name: str, *, only_traced: bool) -> None:
        async def note(request: Request, call_next: CallNext) -> Response:
            seen.append(name)
            return await call_next(request)

        service.middleware(note, only_traced=only_traced)

    layer("first", only_traced=False)
    layer("traced", only_traced=True)
    layer("last", only_traced=False)
    service.handler("/json")(lambda request: None)
    for trace_parent, expected in ((None, ["first", "last"]), (TRACE, ["first", "traced", "last"])):
        service._dispatcher.take(DATUM, REPLY, trace_parent)
        await asyncio.wait(service._dispatcher.tasks)
        assert seen == expected
        seen.clear()
    assert len(connection.published) == 2
