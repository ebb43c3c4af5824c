"""When the time of tokens and clients is over: gateways are told then, as no answer of 16/ECAP and 22/CAP names a time.

Every replica of auth knows of everything that expires: it reads all at its start, and hears of what is added or changed
later. What it misses while NATS is away it finds when it reads all again.

Source: 16/ECAP, endpoint token revocation event, client credential revocation event; 22/CAP, client credentials
revocation event: each is sent when what was valid "becomes unusable", for whatever reason.
"""

import asyncio
import heapq
from contextlib import suppress

import structlog

from kaa_ext.sdk.errors import NotDelivered, StateUnavailable
from kaa_ext.sdk.requests import now_ms
from kaa_ext.services.auth_registry import Kept, Key, Registry

READ_AGAIN_S = 300.0
"""How often all is read, for what was missed."""
CLOCK_CHECK_S = 10.0
"""How often the wall clock is looked at, at least: somebody may set it."""
RETRY_MS = 1000
"""After this time something is tried again that NATS or JetStream did not take."""

log = structlog.get_logger("ext.auth")


class Expiries:
    """What expires, and when."""

    def __init__(self) -> None:
        self._at: dict[tuple[str, Key], int] = {}
        self._queue: list[tuple[int, str, Key]] = []
        """A heap, with entries that are not those of `_at` any more."""
        self._noted = asyncio.Event()

    def note(self, kind: str, key: Key, kept: Kept) -> None:
        """Something was made or changed."""
        if kept.expires is None or kept.status not in ("Inactive", "Active"):
            self._at.pop((kind, key), None)
        elif self._at.get((kind, key)) != kept.expires:
            self._expect(kept.expires, kind, key)

    async def read(self, registry: Registry) -> None:
        """Take note of all that there is."""
        async for kind, key, kept in registry.kept():
            self.note(kind, key, kept)

    async def keep(self, registry: Registry) -> None:
        """End what expires, for ever."""
        loop = asyncio.get_running_loop()
        read_at = loop.time() + READ_AGAIN_S
        while True:
            try:
                if loop.time() >= read_at:
                    read_at = loop.time() + READ_AGAIN_S
                    await self.read(registry)
            except (StateUnavailable, NotDelivered) as error:
                log.warning("what expires could not be read", error=str(error))
            await self._end_due(registry)
            self._noted.clear()
            pause = min(
                CLOCK_CHECK_S, (self._queue[0][0] - now_ms()) / 1000 if self._queue else CLOCK_CHECK_S
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._noted.wait()

    async def _end_due(self, registry: Registry) -> None:
        while self._queue and self._queue[0][0] <= now_ms():
            at, kind, key = heapq.heappop(self._queue)
            if self._at.get((kind, key)) != at:
                continue
            del self._at[kind, key]
            try:
                await registry.end_expired(kind, key)
            except (StateUnavailable, NotDelivered) as error:
                log.warning("an expiry could not be told, trying again", error=str(error))
                self._expect(now_ms() + RETRY_MS, kind, key)

    def _expect(self, at: int, kind: str, key: Key) -> None:
        self._at[kind, key] = at
        heapq.heappush(self._queue, (at, kind, key))
        self._noted.set()
