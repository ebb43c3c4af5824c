"""The common part of cmx and cex in handling endpoints that connect (9/ELCE)."""

import asyncio
from collections.abc import Awaitable, Callable

from kaa_ext.sdk.connectivity import Connectivity

SAME_CONNECTION_MS = 1_000
"""How much later than an endpoint's first message its `connected` event may be: gateways gather changes."""
ENDPOINTS_AT_A_TIME = 32
"""Endpoints of an event that are handled side by side."""


async def for_each_endpoint(event: Connectivity, handle: Callable[[str, str], Awaitable[None]]) -> None:
    """Call `handle` with each endpoint ID of an event and its application version."""
    slots = asyncio.Semaphore(ENDPOINTS_AT_A_TIME)

    async def limited(endpoint_id: str, app_version_name: str) -> None:
        async with slots:
            await handle(endpoint_id, app_version_name)

    await asyncio.gather(*(limited(*endpoint) for endpoint in event.endpoints.items()))


def was_on_connection(event: Connectivity, gateway_replica_id: str | None, timestamp: int) -> bool:
    """Return whether a request, by its replica and time, came over the connection that an event tells of."""
    return (
        gateway_replica_id == event.gateway_replica_id and timestamp >= event.timestamp - SAME_CONNECTION_MS
    )
