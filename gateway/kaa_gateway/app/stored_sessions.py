"""The stream in which a worker's sessions outlive it: makes it when it is missing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from kaa_gateway.bus.streams import make_stream
from kaa_gateway.errors import BusError
from kaa_gateway.fleet import stored_messages
from kaa_gateway.fleet.session_storage import SessionStorage
from kaa_gateway.mqtt import session_state

if TYPE_CHECKING:
    from kaa_gateway.bus.control import Control
    from kaa_gateway.bus.link import Link
    from kaa_gateway.config import Config
    from kaa_gateway.counters import Counters

log = structlog.get_logger("gateway")

RETRY_PAUSE = 1.0
"""Seconds until another attempt to make the stream."""


class StoredSessions:
    """The storage of one worker's sessions, and what makes its stream. Nothing waits for it."""

    def __init__(
        self, config: Config, link: Link, control: Control, counters: Counters, replica_id: str
    ) -> None:
        instance = config.service.instance.name
        self._control = control
        self._settings: dict[str, Any] = stored_messages.stream_settings(
            instance,
            storage=config.durable.storage,
            replicas=config.durable.replicas,
            max_bytes=config.durable.max_bytes,
        )
        self._missing = asyncio.Event()
        self._missing.set()
        self.storage = SessionStorage(
            link,
            counters,
            session_state.restored,
            instance=instance,
            replica_id=replica_id,
            domain=control.jetstream_domain,
        )
        self.storage.on_missing = self._missing.set

    async def run(self) -> None:
        """Make the stream whenever it is missing."""
        reported = ""
        while True:
            await self._missing.wait()
            try:
                answer = await make_stream(
                    self._control.request, self._settings, self._control.jetstream_domain
                )
                trouble = str(answer["error"].get("description")) if "error" in answer else ""
            except BusError as error:
                trouble = str(error)
            if not trouble:
                self._missing.clear()
                continue
            if trouble != reported and self._control.connected:
                log.error("the stream of sessions cannot be used, trying on", error=trouble)
                reported = trouble
            await asyncio.sleep(RETRY_PAUSE)


def make_stored_sessions(
    config: Config, link: Link, control: Control, counters: Counters, replica_id: str
) -> StoredSessions | None:
    """Return the storage of sessions, None if they end with their worker."""
    if config.transports.mqtt.sessions == "memory":
        return None
    return StoredSessions(config, link, control, counters, replica_id)
