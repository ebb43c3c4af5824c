"""The processes that `kaa-gateway dev` starts beside the gateway, and their ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog

log = structlog.get_logger("gateway.dev")

STOP_TIMEOUT = 10.0
"""Seconds that a child process has to end before it is killed."""


class Child(NamedTuple):
    """A process that was started."""

    name: str
    process: asyncio.subprocess.Process
    log_file: Path | None
    """Where it logs, if not to our standard error."""


class Children:
    """The processes of a platform. `on_end` is called with a sentence when one ends unasked."""

    def __init__(self, on_end: Callable[[str], None]) -> None:
        self._on_end = on_end
        self._children: list[Child] = []
        self._watchers: list[asyncio.Task[None]] = []
        self.stopping = False
        """Whether ends are expected from now on."""

    async def spawn(
        self, name: str, *command: str, stdout: int | None = None, log_file: Path | None = None
    ) -> asyncio.subprocess.Process:
        """Start a process. `name` is for messages."""
        # In a session of its own: Ctrl-C reaches only us, and we stop the processes in order.
        process = await asyncio.create_subprocess_exec(*command, stdout=stdout, start_new_session=True)
        child = Child(name, process, log_file)
        self._children.append(child)
        self._watchers.append(asyncio.create_task(self._watch(child)))
        return process

    async def stop(self) -> None:
        """End all processes, the last one first."""
        self.stopping = True
        for child in reversed(self._children):
            await _end(child)
        await asyncio.gather(*self._watchers)

    async def _watch(self, child: Child) -> None:
        code = await child.process.wait()
        if not self.stopping:
            said = f", saying: {last_line(child.log_file)}" if child.log_file else ""
            self._on_end(f"{child.name} has ended with code {code}{said}")


def last_line(log_file: Path) -> str:
    """Return the last line of a log, for a message."""
    lines = log_file.read_text(errors="replace").splitlines() if log_file.exists() else []
    return lines[-1] if lines else "it said nothing"


async def _end(child: Child) -> None:
    """Send SIGTERM, and SIGKILL if that does not help."""
    with contextlib.suppress(ProcessLookupError):
        child.process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await child.process.wait()
    except TimeoutError:
        log.error("killed, because it did not end", part=child.name)
        with contextlib.suppress(ProcessLookupError):
            child.process.kill()
        await child.process.wait()
