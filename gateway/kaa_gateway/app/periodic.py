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
        self._checks: list[_Check] = []

    def every(self, period: float, action: Callable[[], object]) -> None:
        """Call `action` every `period` seconds. Its exceptions are logged, and the calls go on."""
        self._checks.append(_Check(self._loop, period, action))

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine until it ends, or until `stop`."""
        self._tasks.append(self._loop.create_task(coroutine))

    async def stop(self) -> None:
        """End all checks, cancel all tasks, and wait for their ends."""
        for check in self._checks:
            check.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Check:
    """A call that is made again and again: a timer costs half of what a task that sleeps does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, period: float, action: Callable[[], object]) -> None:
        self._loop = loop
        self._period = period
        self._action = action
        self._timer = loop.call_later(period, self._call)

    def stop(self) -> None:
        """Make no more calls."""
        self._timer.cancel()

    def _call(self) -> None:
        self._timer = self._loop.call_later(self._period, self._call)
        try:
            self._action()
        except Exception:
            # Time-outs must go on for everybody else.
            log.exception(
                "a periodic check failed", check=getattr(self._action, "__name__", repr(self._action))
            )
