"""Ends commands whose time is over."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog
from kaa_gateway.bus.messages import now_ms

from kaa_ext.services.cex.commands import Command
from kaa_ext.services.cex.store import CommandStore

SCAN_INTERVAL_S = 30.0
"""Seconds between looks at the commands of all replicas, to end those of a replica that has died."""
RETRY_S = 1.0
"""The pause after a look that failed."""
PAUSE_MIN_S = 0.01

_log: Any = structlog.get_logger("ext.cex")


class DeadlineWatch:
    """Calls `end` for each command whose time is over: soon for those of this replica, later for those of others."""

    def __init__(self, store: CommandStore, end: Callable[[str, Command], Awaitable[None]]) -> None:
        self._store = store
        self._end = end
        self._deadlines: dict[str, int] = {}
        """The first deadline of each endpoint."""
        self._waiting_until = 0
        self._sooner = asyncio.Event()

    def note(self, endpoint_id: str, deadline: int) -> None:
        """Take note of the deadline of a command."""
        if deadline < self._deadlines.get(endpoint_id, deadline + 1):
            self._deadlines[endpoint_id] = deadline
            if deadline < self._waiting_until:
                self._sooner.set()

    async def run(self) -> None:
        """End commands as their time is over; never returns."""
        loop = asyncio.get_running_loop()
        next_scan = loop.time()
        while True:
            try:
                if loop.time() >= next_scan:
                    async for endpoint_id, outstanding in self._store.all_outstanding():
                        for command in outstanding.commands:
                            self.note(endpoint_id, command.deadline)
                    next_scan = loop.time() + SCAN_INTERVAL_S
                for endpoint_id, deadline in list(self._deadlines.items()):
                    if deadline <= now_ms():
                        await self._end_due(endpoint_id)
            except Exception as error:  # noqa: BLE001 - after any error, later deadlines must still be kept
                _log.warning("commands whose time is over are left for later", error=str(error))
                next_scan = loop.time() + RETRY_S
            scan_at = now_ms() + int((next_scan - loop.time()) * 1000)
            self._waiting_until = min(self._deadlines.values(), default=scan_at)
            pause = (min(self._waiting_until, scan_at) - now_ms()) / 1000
            self._sooner.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause, PAUSE_MIN_S)):
                    await self._sooner.wait()

    async def _end_due(self, endpoint_id: str) -> None:
        outstanding = await self._store.outstanding(endpoint_id)
        self._deadlines.pop(endpoint_id, None)
        for command in outstanding.commands:
            if command.deadline <= now_ms():
                await self._end(endpoint_id, command)
            else:
                self.note(endpoint_id, command.deadline)
