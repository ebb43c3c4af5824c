"""What a worker process tells its supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

EXIT_CANNOT_START = 2
"""Exit code of a worker that cannot use its configuration, files or ports."""
ALIVE_PERIOD = 1.0
"""Seconds between reports that the event loop runs."""


class Report(enum.Enum):
    """What every worker reports. A program may send other objects too."""

    ALIVE = enum.auto()
    """Its event loop runs."""
    SERVING = enum.auto()
    """Its start is complete."""


class Reports:
    """Sends reports. One that the supervisor does not take in time is dropped: a worker never waits for it."""

    def __init__(self, supervisor: Connection) -> None:
        self._supervisor = supervisor
        self._poll = select.poll()
        self._poll.register(supervisor.fileno(), select.POLLOUT)

    def send(self, report: enum.Enum) -> None:
        """Send a report."""
        with contextlib.suppress(OSError):
            if self._poll.poll(0):
                self._supervisor.send(report)

    async def repeat(self) -> None:
        """Report again and again that the event loop runs."""
        while True:
            self.send(Report.ALIVE)
            await asyncio.sleep(ALIVE_PERIOD)
