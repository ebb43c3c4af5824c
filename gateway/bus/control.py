"""The control connection: nats-py, for everything that is not per message (events; later identity, configuration).

It keeps itself connected for as long as it runs; the link does not depend on it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import nats.errors
import structlog
from nats.aio.client import Client

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.bus.connector import TlsFiles

log = structlog.get_logger("gateway.bus")

CONNECT_TIMEOUT = 5
"""Seconds for one attempt."""
RECONNECT_WAIT = 1
"""Seconds between attempts."""
OUTBOX_MAX = 10_000
"""Events that wait for the connection; more are dropped, and counted."""
DRAIN_TIMEOUT = 2.0
"""Seconds that the last events have at the end, and that closing a connection has."""


class Control:
    """One nats-py client behind an outbox, so that whoever publishes never waits."""

    def __init__(
        self, urls: tuple[str, ...], *, name: str, tls: TlsFiles, credentials_file: Path | None
    ) -> None:
        self._urls = list(urls)
        self._name = name
        self._tls = tls
        self._credentials_file = credentials_file
        self._client = Client()
        self._closed = asyncio.Event()
        self._outbox: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(OUTBOX_MAX)
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="nats-control")

    def publish_event(self, subject: str, datum: bytes) -> None:
        """Publish when connected; drops and counts the event if too many wait already."""
        try:
            self._outbox.put_nowait((subject, datum))
        except asyncio.QueueFull:
            self.dropped += 1

    async def stop(self) -> None:
        """Publish what waits if NATS is there, then close."""
        if self._client.is_connected:
            with contextlib.suppress(TimeoutError, nats.errors.Error):
                async with asyncio.timeout(DRAIN_TIMEOUT):
                    await self._outbox.join()
                    await self._client.flush()
        while self._task is not None and not self._task.done():
            # Again and again, because nats-py swallows a cancellation in some places.
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=RECONNECT_WAIT)

    async def _run(self) -> None:
        while True:
            publishing: asyncio.Task[None] | None = None
            try:
                await self._connect()
                publishing = asyncio.create_task(self._publish())
                await self._closed.wait()
            except Exception as error:  # noqa: BLE001 - nats-py raises many kinds, and all mean: try again
                log.debug("NATS control connection failed", error=str(error) or type(error).__name__)
            finally:
                if publishing is not None:
                    publishing.cancel()
                await self._close()
            await asyncio.sleep(RECONNECT_WAIT)

    async def _connect(self) -> None:
        options: dict[str, Any] = {}
        if self._credentials_file is not None:
            options["user_credentials"] = str(self._credentials_file)
        if any(url.startswith("tls://") for url in self._urls) or self._tls.ca_file:
            options["tls"] = self._tls.context()
        self._client = Client()
        self._closed.clear()
        await self._client.connect(
            servers=self._urls,
            name=self._name,
            connect_timeout=CONNECT_TIMEOUT,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_WAIT,
            error_cb=_on_error,
            closed_cb=self._on_closed,
            **options,
        )

    async def _publish(self) -> None:
        while True:
            subject, datum = await self._outbox.get()
            try:
                await self._client.publish(subject, datum)
            except nats.errors.Error as error:
                self.dropped += 1
                log.debug("event dropped", subject=subject, error=str(error) or type(error).__name__)
            finally:
                self._outbox.task_done()

    async def _on_closed(self) -> None:
        self._closed.set()

    async def _close(self) -> None:
        with contextlib.suppress(Exception):
            # A server that hangs would hold up nats-py for ever.
            async with asyncio.timeout(DRAIN_TIMEOUT):
                await self._client.close()


async def _on_error(error: Exception) -> None:
    log.debug("NATS control connection", error=str(error) or type(error).__name__)
