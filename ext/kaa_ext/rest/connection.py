"""Keeps a NATS connection for the REST API, as long as the process lives."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import nats.errors
import structlog
from kaa_gateway.bus.nats_client import NatsClient

from kaa_ext.operations.errors import Unavailable
from kaa_ext.operations.session import Session
from kaa_ext.sdk.connection import PING_INTERVAL_S, RECONNECT_WAIT_S
from kaa_ext.sdk.errors import text_of
from kaa_ext.sdk.timeouts import CONNECT_TIMEOUT_S
from kaa_ext.sdk.urls import masked


class Connection:
    """A connection that is made again whenever it is lost. States are in the JetStream domain `domain`."""

    def __init__(self, urls: Sequence[str], domain: str | None = None) -> None:
        self._urls = list(urls)
        self._domain = domain
        self._log: Any = structlog.get_logger(servers=",".join(map(masked, urls)))
        self._session: Session | None = None
        self._opened = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether NATS is connected."""
        return self._session is not None and self._session.client.is_connected

    @property
    def session(self) -> Session:
        """The session with NATS. Raise Unavailable while NATS is away."""
        if self._session is None or not self.is_connected:
            raise Unavailable("NATS cannot be reached")
        return self._session

    async def open(self) -> None:
        """Connect, however long it takes."""
        self._keeper = asyncio.create_task(self._keep())
        await self._opened.wait()

    async def close(self) -> None:
        """Disconnect."""
        while self._keeper is not None and not self._keeper.done():
            # More than once, because nats-py swallows a cancellation in some places.
            self._keeper.cancel()
            await asyncio.wait({self._keeper}, timeout=RECONNECT_WAIT_S)

    async def _keep(self) -> None:
        # nats-py reconnects by itself, but closes for good on some errors of the server.
        while True:
            closed = asyncio.Event()
            client = NatsClient()
            try:
                await self._connect(client, closed)
                self._session = Session(client, self._domain)
                self._opened.set()
                await closed.wait()
                self._log.error("NATS closed the connection, opening a new one")
            except (nats.errors.Error, OSError) as error:
                self._log.warning("cannot connect to NATS, trying on", error=text_of(error))
            finally:
                self._session = None
                with suppress(nats.errors.Error, OSError):
                    await client.close()
            await asyncio.sleep(RECONNECT_WAIT_S)

    async def _connect(self, client: NatsClient, closed: asyncio.Event) -> None:
        async def on_closed() -> None:
            closed.set()

        told = False

        async def on_error(error: Exception) -> None:
            nonlocal told
            if client.is_connected:
                self._log.warning("NATS error", error=text_of(error))
            elif not told:
                self._log.warning("cannot connect to NATS, trying on", error=text_of(error))
            told = not client.is_connected

        await client.connect(
            self._urls,
            name="kaa-ext rest",
            error_cb=on_error,
            closed_cb=on_closed,
            connect_timeout=CONNECT_TIMEOUT_S,
            reconnect_time_wait=RECONNECT_WAIT_S,
            max_reconnect_attempts=-1,
            ping_interval=PING_INTERVAL_S,
        )
