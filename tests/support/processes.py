"""Finds the processes that a command has started, and those that they have started."""

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from tests.support.nats import POLL_S

END_TIMEOUT_S = 20.0


def children(pid: int) -> dict[int, str]:
    """Return all descendants of a process that are there now: process ID and command line."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name in parentheses may have spaces in it.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found: dict[int, str] = {}
    generation = {pid}
    while generation:
        generation = {child for child, parent in parents.items() if parent in generation}
        found |= {child: command_line(child) for child in generation}
    return found


def command_line(pid: int) -> str:
    """Return the command line of a process; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Return whether a process is there and not just waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def all_ended(pids: Iterable[int]) -> bool:
    """Return whether all of these processes are gone, or are so in a moment."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while any(map(alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def kill(pids: dict[int, str]) -> None:
    """Kill what is left, so that a failed test leaves nothing behind."""
    for pid, command in pids.items():
        if command and command_line(pid) == command:
            os.kill(pid, signal.SIGKILL)
