"""Looks for what the reference services have stored, where docs/extensions.md says that it is."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
import nats.errors
from kaa_ext.sdk.buckets import JetStreamBucket
from kaa_ext.sdk.errors import StateUnavailable
from kaa_ext.sdk.state import State
from kaa_ext.sdk.streams import stored
from nats.js import JetStreamContext
from nats.js.api import DeliverPolicy

from kaa_bench.soak.devices import Device
from kaa_bench.soak.services import APPLIED, COMMAND, EXCHANGES, EXECUTE, KEYS, UPDATE, ServicesDevice

STREAM, STREAM_SUBJECT = "epts-samples", "epts.samples.*.*"
METADATA, ENDPOINTS, RESULTS = "epmx-metadata", "cmx-endpoints", "cex-results"
"""The buckets of epmx, cmx and cex."""
OVERLAP = timedelta(seconds=5)
"""How much of the stream is read again, because times are not exact."""


class StoredRecords:
    """Reads what the services have stored, and enters it into the histories of devices."""

    def __init__(self, nats_url: str, app_version: str, devices: Mapping[int, Device]) -> None:
        self._nats_url = nats_url
        self._app_version = app_version
        self._devices = {
            device.token: device for device in devices.values() if isinstance(device, ServicesDevice)
        }
        self._since: datetime | None = None
        self._counted: set[tuple[str, int]] = set()

    def read(self) -> None:
        """Enter new records. If NATS does not answer, the next call does."""
        with suppress(nats.errors.Error, StateUnavailable, OSError):
            asyncio.run(self._read())

    async def _read(self) -> None:
        client = await nats.connect(self._nats_url, allow_reconnect=False, error_cb=_silent)
        try:
            jetstream = client.jetstream()
            await self._read_samples(jetstream)
            metadata = await _state(jetstream, METADATA)
            endpoints = await _state(jetstream, ENDPOINTS)
            results = await _state(jetstream, RESULTS)
            for token, device in self._devices.items():
                values = await metadata.get(token) or {}
                known = await endpoints.get(self._app_version, token) or {}
                applied = int(known.get("", {}).get("applied", {}).get("configId", -1))
                for number in device.history.missing():
                    place = number % len(EXCHANGES)
                    if (
                        (place == UPDATE and int(values.get(f"k{number % KEYS}", -1)) >= number)
                        or (place == APPLIED and applied >= number)
                        or (place == EXECUTE and await results.get(token, COMMAND, str(number)) is not None)
                    ):
                        self._deliver(token, number)
        finally:
            await client.close()

    async def _read_samples(self, jetstream: JetStreamContext) -> None:
        policy = DeliverPolicy.ALL if self._since is None else DeliverPolicy.BY_START_TIME
        began = datetime.now(UTC)
        async for message in stored(jetstream, STREAM, STREAM_SUBJECT, policy, self._since):
            batch = json.loads(message.data)
            for number in batch["samples"]:
                self._deliver(batch["endpointId"], number)
        self._since = began - OVERLAP

    def _deliver(self, token: str, number: int) -> None:
        if (token, number) not in self._counted:
            self._counted.add((token, number))
            self._devices[token].history.deliver(number)


async def _state(jetstream: JetStreamContext, bucket: str) -> State[dict[str, Any]]:
    state = State(lambda: JetStreamBucket(lambda: jetstream, bucket, None, 1), dict[str, Any])
    await state.open()
    return state


async def _silent(error: Exception) -> None:
    """Ignore what nats-py reports beside the exceptions that it raises."""
