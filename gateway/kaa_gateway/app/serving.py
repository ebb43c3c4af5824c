"""Serving until a signal: SIGTERM and SIGINT drain, SIGHUP reads the configuration again."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def serve(
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
    hang_up: Callable[[], None] | None = None,
) -> None:
    """Await `start`, then SIGTERM or SIGINT, then `stop`. A signal during the start cancels it.

    `hang_up` is called at each SIGHUP. `stop` is awaited in any case, also after a start that came only half way. An
    exception of `start` is raised after it.
    """
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in SIGNALS:
        loop.add_signal_handler(number, signalled.set)
    if hang_up is not None:
        loop.add_signal_handler(signal.SIGHUP, hang_up)
    waiting = loop.create_task(signalled.wait())
    starting = loop.create_task(_awaited(start))
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            await waiting
    finally:
        for task in (starting, waiting):
            task.cancel()
        await asyncio.wait({starting, waiting})
        await stop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
        if hang_up is not None:
            loop.remove_signal_handler(signal.SIGHUP)


async def _awaited(action: Callable[[], Awaitable[None]]) -> None:
    await action()
