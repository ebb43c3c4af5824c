"""The stream in which a worker's sessions outlive it: makes it when it is missing, and notices when it was emptied."""

from __future__ import annotations

import asyncio
import contextlib
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

CHECK_PERIOD = 30.0
"""Seconds between looks whether the stream is there, and has not lost its sessions."""
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
        self._name: str = self._settings["name"]
        self._created = ""
        """When the stream was made, as JetStream says it; "" before that is known."""
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
        """Make the stream whenever it is missing, and write all sessions again when it has lost them."""
        reported = ""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_PERIOD):
                    await self._missing.wait()
            self._missing.clear()
            trouble = await self._check()
            if trouble != reported and (self._control.connected or not trouble):
                if trouble:
                    log.error(
                        "the stream of sessions cannot be used, trying on", stream=self._name, error=trouble
                    )
                else:
                    log.info("the stream of sessions can be used again", stream=self._name)
                reported = trouble
            if trouble:
                self._missing.set()
                await asyncio.sleep(RETRY_PAUSE)

    async def _check(self) -> str:
        """Return why the stream cannot be used; "" if it can."""
        last_sequence = self.storage.last_sequence
        try:
            answer = await make_stream(self._control.request, self._settings, self._control.jetstream_domain)
        except BusError as error:
            return str(error)
        if "error" in answer:
            return str(answer["error"].get("description"))
        created, former = str(answer.get("created")), self._created
        self._created = created
        if (former and created != former) or answer.get("state", {}).get("last_seq", 0) < last_sequence:
            sessions = self.storage.write_all_again()
            log.error(
                "the stream has lost its sessions, writing all again", stream=self._name, sessions=sessions
            )
        return ""


def make_stored_sessions(
    config: Config, link: Link, control: Control, counters: Counters, replica_id: str
) -> StoredSessions | None:
    """Return the storage of sessions, None if they end with their worker."""
    if config.transports.mqtt.sessions == "memory":
        return None
    return StoredSessions(config, link, control, counters, replica_id)
