"""Files that are being written: when they count as complete."""

import asyncio
import os
from pathlib import Path

from kaa_gateway.files import complete, state_of, wait_if_fresh


async def test_a_file_is_complete_when_two_looks_agree(tmp_path: Path) -> None:
    path, missing = tmp_path / "file", tmp_path / "missing"
    path.write_text("")
    waiting = asyncio.create_task(complete([path, missing], 0.2))
    for size in range(1, 10):
        await asyncio.sleep(0.05)
        assert not waiting.done()
        path.write_text("x" * size)
    assert await waiting == [state_of(path), None]
    assert path.read_text() == "x" * 9


def test_a_process_that_starts_waits_for_a_fresh_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) < 3:
            path.write_text("x" * len(pauses))

    wait_if_fresh(path, 100.0, sleep)
    assert pauses == [100.0] * 3
    assert path.read_text() == "xx"


def test_an_old_or_missing_file_costs_no_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    os.utime(path, (1, 1))
    pauses: list[float] = []
    wait_if_fresh(path, 100.0, pauses.append)
    wait_if_fresh(tmp_path / "missing", 100.0, pauses.append)
    assert pauses == []
