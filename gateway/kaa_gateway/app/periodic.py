"""Tasks that a worker runs in the background until it stops: checks at fixed periods, and others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

log = structlog.get_logger("gateway")


class BackgroundTasks:
    """The background tasks of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: list[asyncio.Task[None]] = []

    def every(self, period: float, action: Callable[[], object]) -> None:
        """Call `action` every `period` seconds. Its exceptions are logged, and the calls go on."""
        self.run(_repeat(period, action))

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine until it ends, or until `stop`."""
        self._tasks.append(self._loop.create_task(coroutine))

    async def stop(self) -> None:
        """Cancel all tasks, and wait for their ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _repeat(period: float, action: Callable[[], object]) -> None:
    while True:
        await asyncio.sleep(period)
        try:
            action()
        except Exception:
            # Time-outs must go on for everybody else.
            log.exception("a periodic check failed", check=getattr(action, "__name__", repr(action)))
