"""Ends tokens and clients that expire: no answer of 16/ECAP and 22/CAP names a time, so gateways need an event.

Every replica of auth knows every expiry: it reads all of them at its start, and is told of later changes by NATS. It
reads them again from time to time, for changes that it missed while NATS was away.

Source: 16/ECAP, endpoint token revocation event, client credential revocation event; 22/CAP, client credentials
revocation event: each is sent when a valid credential "becomes unusable", for any reason.
"""

import asyncio
import heapq
from contextlib import suppress

import structlog
from kaa_gateway.bus.messages import now_ms

from kaa_ext.sdk.errors import NotDelivered, StateUnavailable
from kaa_ext.services.auth.credentials import Credential, Key
from kaa_ext.services.auth.registry import Registry

READ_AGAIN_S = 300.0
"""Seconds between complete reads."""
CLOCK_CHECK_S = 10.0
"""The longest sleep, in seconds: the wall clock may be set meanwhile."""
RETRY_MS = 1000
"""The pause after NATS or JetStream did not take something."""

log = structlog.get_logger("ext.auth")


class ExpiryWatch:
    """The times at which credentials expire, and the task that ends them."""

    def __init__(self) -> None:
        self._at: dict[tuple[str, Key], int] = {}
        self._queue: list[tuple[int, str, Key]] = []
        """A heap. Entries that differ from `_at` are out of date."""
        self._noted = asyncio.Event()

    def note(self, state: str, key: Key, credential: Credential) -> None:
        """Take note of a credential that was added or changed."""
        if credential.expires is None or credential.status not in ("Inactive", "Active"):
            self._at.pop((state, key), None)
        elif self._at.get((state, key)) != credential.expires:
            self._schedule(credential.expires, state, key)

    async def read(self, registry: Registry) -> None:
        """Take note of all credentials."""
        async for state, key, credential in registry.stored():
            self.note(state, key, credential)

    async def run(self, registry: Registry) -> None:
        """End credentials as they expire; never returns."""
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
            at, state, key = heapq.heappop(self._queue)
            if self._at.get((state, key)) != at:
                continue
            del self._at[state, key]
            try:
                await registry.end_expired(state, key)
            except (StateUnavailable, NotDelivered) as error:
                log.warning("an expiry could not be told, trying again", error=str(error))
                self._schedule(now_ms() + RETRY_MS, state, key)

    def _schedule(self, at: int, state: str, key: Key) -> None:
        self._at[state, key] = at
        heapq.heappush(self._queue, (at, state, key))
        self._noted.set()
