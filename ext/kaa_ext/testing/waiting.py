"""Waiting for a condition in a test."""

import asyncio
from collections.abc import Callable

TIMEOUT_S = 20.0
POLL_S = 0.005


async def until(condition: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Return when the condition holds. Raise AssertionError with `what` after the timeout."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited for {what}"
        await asyncio.sleep(POLL_S)
