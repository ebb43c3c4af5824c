"""Long work in slices."""

import asyncio
from collections.abc import Generator

from kaa_gateway.slices import STEPS_PER_ROUND, Slices


async def rounds(slices: Slices) -> int:
    """How many rounds of the event loop it takes until all work is done."""
    count = 0
    while len(slices):
        await asyncio.sleep(0)
        count += 1
    return count


def work(done: list[str], name: str, steps: int, cost: int = 1) -> Generator[int, None, str]:
    for _ in range(steps):
        done.append(name)
        yield cost
    return name


async def test_a_round_takes_no_more_than_its_steps_of_all_work_together() -> None:
    done: list[str] = []
    results: list[str] = []
    slices = Slices(asyncio.get_running_loop())
    for name in "abc":
        slices.run(work(done, name, 5 * STEPS_PER_ROUND), results.append)
    assert done == []
    await asyncio.sleep(0)
    assert len(done) == STEPS_PER_ROUND
    assert await rounds(slices) in (14, 15)
    assert results == ["a", "b", "c"]
    assert done == sorted(done), "one behind the other"


async def test_work_says_how_much_a_step_is() -> None:
    done: list[str] = []
    slices = Slices(asyncio.get_running_loop())
    slices.run(work(done, "dear", STEPS_PER_ROUND, cost=10))
    await asyncio.sleep(0)
    assert len(done) == STEPS_PER_ROUND // 10


async def test_a_failure_ends_only_the_work_that_fails() -> None:
    def failing() -> Generator[int, None, None]:
        yield 1
        raise ValueError("broken")

    slices = Slices(asyncio.get_running_loop())
    slices.run(failing())
    assert await slices.finish(work([], "after it", 3)) == "after it"


async def test_work_that_follows_from_the_end_of_other_work() -> None:
    """It waits for no further round, and leaves none behind."""
    errors: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    slices = Slices(loop)
    results: list[str] = []

    def follow(result: str) -> None:
        results.append(result)
        slices.run(work([], "second", 1), results.append)

    slices.run(work([], "first", 1), follow)
    await rounds(slices)
    assert await slices.finish(work([], "third", 1)) == "third"
    await rounds(slices)
    await asyncio.sleep(0)
    assert results == ["first", "second"]
    assert errors == []
