"""Tasks end when they are cancelled, even if a cancellation is lost."""

import asyncio
from contextlib import suppress

from kaa_gateway.tasks import end_tasks

TIMEOUT_S = 30


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    """It loses the first, as asyncio.wait_for of Python 3.11 does."""
    cancelled = 0

    async def work() -> None:
        nonlocal cancelled
        try:
            await asyncio.sleep(TIMEOUT_S)
        except asyncio.CancelledError:
            cancelled += 1
        await asyncio.sleep(TIMEOUT_S)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    async with asyncio.timeout(TIMEOUT_S):
        await end_tasks([task])
    assert task.cancelled()
    assert cancelled == 1


async def test_what_tasks_raise_is_ignored() -> None:
    async def fail() -> None:
        raise OSError

    async def fail_at_the_end() -> None:
        try:
            await asyncio.sleep(TIMEOUT_S)
        finally:
            await fail()

    failed = asyncio.create_task(fail())
    with suppress(OSError):
        await failed
    failing = asyncio.create_task(fail_at_the_end())
    await asyncio.sleep(0)
    await end_tasks([failed, failing])
    assert isinstance(failing.exception(), OSError)


async def test_the_waiting_task_can_be_cancelled() -> None:
    """Then it ends, and the tasks stay cancelled."""
    go_on = asyncio.Event()

    async def work() -> None:
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await go_on.wait()

    stubborn = asyncio.create_task(work())
    await asyncio.sleep(0)
    ending = asyncio.create_task(end_tasks([stubborn]))
    await asyncio.sleep(0)
    ending.cancel()
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.wait([ending])
    assert ending.cancelled()
    go_on.set()
    await stubborn
