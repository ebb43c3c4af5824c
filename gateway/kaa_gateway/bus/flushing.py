"""Waits until a NATS server has processed what a nats-py client has sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats.aio.client import Client

FLUSH_TIMEOUT_S = 10
"""Default time for each of the two round trips."""


async def flush(client: Client, timeout_s: int = FLUSH_TIMEOUT_S) -> None:
    """Return when the server has processed all subscriptions and messages. Raise nats.errors.Error if it does not.

    Two round trips: nats-py writes the PING of `flush()` at once, but what waited before it only in the next turn of
    the event loop. So the first PONG may overtake a SUB; the second cannot.
    """
    await client.flush(timeout_s)
    await client.flush(timeout_s)
