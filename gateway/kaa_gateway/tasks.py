"""Ends asyncio tasks that run until they are cancelled."""

import asyncio
from collections.abc import Iterable
from typing import Any

REPEAT = 0.2


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended. What they raise is ignored.

    A task is cancelled again until it ends: `asyncio.wait_for` of Python 3.11 loses a cancellation that comes in the
    moment when the awaited future is done (bpo-37658).
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        ended, running = await asyncio.wait(running, timeout=REPEAT)
        for task in ended:
            if not task.cancelled():
                task.exception()
