"""Handlers that take all requests of a turn of the event loop at once."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeAlias

from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.requests import Request, Result

BatchResult: TypeAlias = Sequence[Result | ExtensionError] | None
"""The result of each request, in order, or None if all have the result None."""
BatchHandler: TypeAlias = Callable[[list[Request]], Awaitable[BatchResult]]
"""A function that takes requests. What it raises is the error of all of them."""


def gathered(
    function: BatchHandler, spawn: Callable[[Coroutine[Any, Any, None]], object]
) -> Callable[[Request], Awaitable[Result]]:
    """Return a handler of one request, which calls a batch handler with all those of a turn of the event loop."""
    waiting: list[tuple[Request, asyncio.Future[Result]]] = []

    async def run(batch: list[tuple[Request, asyncio.Future[Result]]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await function([request for request, _ in batch]) or [None] * len(batch)
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    def start() -> None:
        nonlocal waiting
        batch, waiting = waiting, []
        spawn(run(batch))

    async def handle(request: Request) -> Result:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        if not waiting:
            loop.call_soon(start)
        waiting.append((request, future))
        return await future

    return handle
