"""The checks that a worker makes at fixed periods."""

import asyncio

from kaa_gateway.app.periodic import BackgroundTasks


async def test_a_check_is_called_again_also_after_a_failure_and_not_after_the_stop() -> None:
    tasks = BackgroundTasks(asyncio.get_running_loop())
    called = asyncio.Semaphore(0)
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        called.release()
        raise ValueError("a fault of the check")

    tasks.every(0.001, check)
    for _ in range(3):
        await asyncio.wait_for(called.acquire(), 30)
    await tasks.stop()
    before = calls
    await asyncio.sleep(0.05)
    assert calls == before
