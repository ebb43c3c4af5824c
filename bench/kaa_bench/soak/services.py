"""The reference services in a soak: what devices send them, and what they have stored of it.

A device takes the services in turn. Samples must be in the stream and metadata in the bucket afterwards, if the device
heard 200; the other requests store nothing that could be counted, and count as delivered when they are answered.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import aiohttp
import msgspec
import nats
import nats.errors
from kaa_ext.sdk.buckets import JetStreamBucket
from kaa_ext.sdk.errors import StateUnavailable
from kaa_ext.sdk.state import State
from kaa_ext.sdk.streams import stored
from nats.js.api import DeliverPolicy

from kaa_bench.processes import HOST
from kaa_bench.soak.devices import ANSWER_TIMEOUT_S, Device

SAMPLES = "samples"
"""The instance of dcx; its name tells it from the extension of the core mode."""
SERVICES = (f"{SAMPLES}=dcx", "epts", "epmx", "cmx", "ecr", "cex", "tsx")
SETTINGS: dict[str, object] = {
    SAMPLES: {"must-confirm": ["epts"], "confirmation-timeout": 5},
    "epts": {"transmitters": [SAMPLES]},
}
INSTANCES = (SAMPLES, "epmx", "cmx", "cex", "tsx")
STREAM, STREAM_SUBJECT = "epts-samples", "epts.samples.*.*"
BUCKET = "epmx-metadata"
"""Where epts and epmx store, as docs/extensions.md says."""
KEYS = 900
"""Metadata keys of a device, which it writes in turn."""
OVERLAP = timedelta(seconds=5)
"""How much of the stream is read again, because times are not exact."""

REQUESTS: tuple[tuple[str, str, Callable[[int], object]], ...] = (
    (SAMPLES, "json", lambda number: [number]),
    ("epmx", "update/keys", lambda number: {f"k{number % KEYS}": number}),
    ("epmx", "get", lambda number: {}),
    ("cmx", "config/json", lambda number: {"configId": ""}),
    ("cex", "command/reboot", lambda number: {}),
    ("tsx", "time", lambda number: {}),
)
"""Instance, resource path and body of the requests, in turn by the number of the message."""
STORED = (0, 1)
"""The places of the requests whose effect is stored."""


class ServicesDevice(Device):
    """An HTTP device that sends requests to all services, one after the other."""

    kind = "HTTP"

    async def session(self) -> None:
        """See `Device.session`."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        prefix = self.path.removesuffix(f"/{self.instance}/{self.token}/json")
        async with aiohttp.ClientSession(timeout=timeout) as client:
            while True:
                await self.may_send()
                number = self.ledger.send()
                place = number % len(REQUESTS)
                instance, path, body = REQUESTS[place]
                url = f"http://{HOST}:{self.port}/{prefix}/{instance}/{self.token}/{path}"
                async with client.post(url, json=body(number)) as response:
                    await response.read()
                    if response.status != 200:
                        self.ledger.refuse(number)
                        continue
                    self.ledger.acknowledge(number)
                    self.ledger.answer(number)
                    if place not in STORED:
                        self.ledger.deliver(number)


class StoredRecords:
    """Reads what the services have stored, and enters it into the ledgers of devices."""

    def __init__(self, nats_url: str, devices: Mapping[int, Device]) -> None:
        self._nats_url = nats_url
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
            policy = DeliverPolicy.ALL if self._since is None else DeliverPolicy.BY_START_TIME
            began = datetime.now(UTC)
            async for message in stored(jetstream, STREAM, STREAM_SUBJECT, policy, self._since):
                batch = json.loads(message.data)
                for number in batch["samples"]:
                    self._deliver(batch["endpointId"], number)
            self._since = began - OVERLAP
            metadata = State(
                lambda: JetStreamBucket(lambda: jetstream, BUCKET, None, 1), dict[str, msgspec.Raw]
            )
            await metadata.open()
            for token, device in self._devices.items():
                values = await metadata.get(token) or {}
                for number in device.ledger.missing():
                    key = f"k{number % KEYS}"
                    if number % len(REQUESTS) == 1 and key in values and int(bytes(values[key])) >= number:
                        self._deliver(token, number)
        finally:
            await client.close()

    def _deliver(self, token: str, number: int) -> None:
        if (token, number) not in self._counted:
            self._counted.add((token, number))
            self._devices[token].ledger.deliver(number)


async def _silent(error: Exception) -> None:
    """Ignore what nats-py reports beside the exceptions that it raises."""
