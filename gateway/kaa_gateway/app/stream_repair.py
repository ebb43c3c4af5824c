"""Makes the JetStream streams of durable extension instances again when they are gone.

A stream in memory ends with its server, and an operator may remove one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from kaa_gateway.bus.streams import StreamError

if TYPE_CHECKING:
    from kaa_gateway.bus.durable import DurableLanes
    from kaa_gateway.bus.streams import Streams

log = structlog.get_logger("gateway")


class StreamRepair:
    """Makes missing streams again as soon as a lane reports that its stream does not store."""

    def __init__(self, streams: Streams, lanes: DurableLanes) -> None:
        self._streams = streams
        self._lanes = lanes
        self._task: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Begin a repair if a lane needs one and none is under way."""
        if any(lane.stalled for lane in self._lanes.lanes) and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._repair(), name="streams")

    async def stop(self) -> None:
        """End a repair that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _repair(self) -> None:
        try:
            await self._streams.ensure()
        except StreamError as error:
            log.error("a stream cannot be used", error=error.detail)
