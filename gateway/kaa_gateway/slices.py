"""Long work in slices: a bounded number of steps in each round of the event loop, which serves devices in between.

A piece of work is a generator. It yields the number of steps that it has taken since it last did, where a step is about
as long as the end of one attachment: some microseconds. All work of a worker stands in one queue, so two revocations
at a time take no more of a round than one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

STEPS_PER_ROUND = 100
"""Steps of all work in one round of the event loop."""

Result = TypeVar("Result")

log = structlog.get_logger("gateway")


class Slices:
    """The long work of one worker, in the order in which it was given."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: deque[tuple[Generator[int, None, Any], Callable[[Any], object]]] = deque()
        self._is_scheduled = False
        """Whether a round is to come, or goes on now."""

    def __len__(self) -> int:
        return len(self._queue)

    def run(
        self, steps: Generator[int, None, Result], done: Callable[[Result], object] = lambda result: None
    ) -> None:
        """Do some work in slices, from the next round on. `done` is called with what the generator returns."""
        self._queue.append((steps, done))
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._round)

    async def finish(self, steps: Generator[int, None, Result]) -> Result:
        """Do some work in slices, and return what the generator returns."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.run(steps, lambda result: None if future.done() else future.set_result(result))
        return await future

    def _round(self) -> None:
        left = STEPS_PER_ROUND
        while left > 0:
            steps, done = self._queue[0]
            try:
                left -= next(steps)
            except StopIteration as end:
                self._queue.popleft()
                done(end.value)
            except Exception:
                # What stands behind it must be done all the same.
                self._queue.popleft()
                log.exception("a part of some long work failed, and the rest of it was left out")
            if not self._queue:
                self._is_scheduled = False
                return
        self._loop.call_soon(self._round)
