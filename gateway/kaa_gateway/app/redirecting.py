"""Sends MQTT clients to other servers at a rate, so that a fleet which is moved is no storm."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaa_gateway.app.listeners import Listeners

TURN = 0.05
"""Seconds between two groups of clients."""
AT_ONCE = 500
"""Clients of a group when there is no rate: a few milliseconds of work."""


async def redirect_clients(
    listeners: Listeners,
    rate: float,
    *,
    count: int | None = None,
    deadline: float | None = None,
    permanent: bool = False,
) -> int:
    """Send `count` clients away, or all, `rate` a second; return how many were sent. A rate of 0 is as fast as it goes.

    The rate rises as far as needed to be done by `deadline`, a loop time.
    """
    loop = asyncio.get_running_loop()
    sent, credit, last = 0, 1.0, loop.time()
    while count is None or sent < count:
        now = loop.time()
        needed = 0.0
        if deadline is not None:
            needed = listeners.client_count() / max(deadline - now, TURN)
        credit = credit + (now - last) * max(rate, needed) if rate else float(AT_ONCE)
        last = now
        wanted = min(int(credit), AT_ONCE * max(1, int(needed * TURN) // AT_ONCE + 1))
        if count is not None:
            wanted = min(wanted, count - sent)
        if wanted:
            done = listeners.redirect(wanted, permanent=permanent)
            sent += done
            credit -= done
            if done < wanted:
                break
        await asyncio.sleep(TURN if rate else 0)
    return sent
