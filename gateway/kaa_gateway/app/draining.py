"""The end of a worker: what is under way is finished, as far as the graceful-shutdown time allows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from kaa_gateway.app.listeners import Listeners
    from kaa_gateway.bus.durable import DurableLanes
    from kaa_gateway.bus.link import Link

log = structlog.get_logger("gateway")

POLL_PERIOD = 0.01
"""Seconds between looks at what is still under way."""
REFUSAL_MARGIN = 1.0
"""Seconds before the end at which unanswered requests are refused, so that their clients can still read it."""


async def drain_requests(listeners: Listeners, deadline: float) -> None:
    """Wait until all requests have arrived and are answered; refuse the rest shortly before `deadline`, a loop time."""
    loop = asyncio.get_running_loop()
    refusal_time = deadline - min(REFUSAL_MARGIN, (deadline - loop.time()) / 4)
    while listeners.is_busy() and loop.time() < refusal_time:
        await asyncio.sleep(POLL_PERIOD)
    listeners.end_drain()


async def drain_nats(link: Link, durable: DurableLanes, deadline: float) -> None:
    """Wait until NATS and its streams have confirmed all messages; until `deadline`, a loop time, at most."""
    if not link.ready:
        return
    try:
        async with asyncio.timeout_at(deadline):
            await link.drain()
            while durable.backlog():
                await asyncio.sleep(POLL_PERIOD)
    except TimeoutError:
        waiting = link.backlog + durable.backlog()
        log.warning("NATS did not confirm everything in time", bytes=waiting)
