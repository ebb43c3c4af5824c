"""Files that others write while the gateway runs: whether one has changed, and whether it is complete.

A file that is written in place is empty for a moment, and then grows. It counts as complete when two looks, some time
apart, find the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

PAUSE = 1.0
"""Seconds between two looks."""
START_PAUSE = 0.25
"""The same at the start of a process, which is not to take long."""

FileState: TypeAlias = tuple[int, int, int, int] | None
"""Values that change when a file changes or is replaced; None if there is no file."""


def state_of(path: Path) -> FileState:
    """Return the state of a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def states_of(paths: Sequence[Path]) -> list[FileState]:
    """Return the states of files."""
    return [state_of(path) for path in paths]


async def complete(paths: Sequence[Path], pause: float = PAUSE) -> list[FileState]:
    """Wait until two looks at files agree, and return what they found."""
    states = states_of(paths)
    while True:
        await asyncio.sleep(pause)
        if (again := states_of(paths)) == states:
            return states
        states = again


def wait_if_fresh(
    path: Path, pause: float = START_PAUSE, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Wait until a file is complete, if it has changed within the last `pause` seconds. For the start of a process."""
    while (state := state_of(path)) is not None and 0 <= time.time() - state[2] / 1e9 < pause:
        sleep(pause)
        if state_of(path) == state:
            return
