"""The endpoints that a gateway instance has, from the KV bucket that its replicas write.

A service that starts late has the whole picture by one watch. Entries of a replica without a lease do not count.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec
import nats.errors
import nats.js.errors
from kaa_gateway.bus import presence_bucket
from kaa_gateway.bus.presence_bucket import Entry, Lease

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from nats.aio.client import Client
    from nats.js.kv import KeyValue

LEASE_CHECK_S = 1.0
"""How often leases are looked at."""
SILENCE_S = 5.0
"""Silence after which a watch has ended, unless a lease is longer."""
RETRY_S = 0.2


class Presence:
    """The endpoints of a gateway instance, kept up to date until the end of the context.

    `client` is connected. `on_change` is called with an endpoint ID whenever its entries have changed.
    """

    def __init__(
        self, client: Client, gateway_instance: str = "kpc", on_change: Callable[[str], None] | None = None
    ) -> None:
        self._client = client
        self._bucket = presence_bucket.bucket_of(gateway_instance)
        self._on_change = on_change
        self._entries: dict[str, dict[str, Entry]] = {}
        """By endpoint ID and replica."""
        self._lives: dict[str, str] = {}
        """The present life of each replica with a lease."""
        self._ends: dict[str, float] = {}
        """When the lease of a replica ends, by the loop's clock."""
        self._longest_lease = 0.0
        self._whole = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Return when the whole picture is there. BucketNotFoundError: no gateway has made the bucket yet."""
        await self._client.jetstream().key_value(self._bucket)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run()), loop.create_task(self._end_leases())]
        await self._whole.wait()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """End the watch."""
        left = set(self._tasks)
        while left:
            # Again and again, because nats-py swallows a cancellation in some places.
            for task in left:
                task.cancel()
            left = (await asyncio.wait(left, timeout=RETRY_S))[1]

    def get(self, endpoint_id: str) -> list[Entry]:
        """Return where an endpoint is connected: no entry, one, or one of each replica that has it."""
        found = self._entries.get(endpoint_id, {}).values()
        return [entry for entry in found if self._lives.get(entry.replica) == entry.life]

    def endpoint_ids(self) -> list[str]:
        """Return all endpoints that are connected."""
        return [endpoint_id for endpoint_id in self._entries if self.get(endpoint_id)]

    async def _run(self) -> None:
        """Watch, and begin again when the watch has ended: NATS keeps the bucket in memory."""
        while True:
            with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):
                await self._watch(await self._client.jetstream().key_value(self._bucket))
            await asyncio.sleep(RETRY_S)
            for replica_id in list(self._lives):
                self._forget(replica_id)
            self._entries.clear()

    async def _watch(self, bucket: KeyValue) -> None:
        """Receive changes until no replica is heard of for a lease, which is how a watch ends."""
        watcher = await bucket.watchall()
        loop = asyncio.get_running_loop()
        end = loop.time() + SILENCE_S
        while loop.time() < end:
            try:
                update = await watcher.updates(timeout=LEASE_CHECK_S)  # type: ignore[no-untyped-call]
            except TimeoutError:
                continue
            end = loop.time() + max(SILENCE_S, self._longest_lease)
            if update is None:
                self._whole.set()
            else:
                self._receive(update.key, update.value or b"")
        await watcher.stop()  # type: ignore[no-untyped-call]

    def _receive(self, key: str, value: bytes) -> None:
        kind, _, name = key.partition(".")
        replica_id = key.rpartition(".")[2]
        if kind == "replica":
            self._renew(name, value)
            return
        endpoint_id = presence_bucket.endpoint_of(key)
        entries = self._entries.setdefault(endpoint_id, {})
        if value:
            entries[replica_id] = msgspec.json.decode(value, type=Entry)
        else:
            entries.pop(replica_id, None)
            if not entries:
                del self._entries[endpoint_id]
        self._changed(endpoint_id)

    def _renew(self, replica_id: str, value: bytes) -> None:
        if not value:
            self._forget(replica_id)
            return
        lease = msgspec.json.decode(value, type=Lease)
        if self._lives.get(replica_id, lease.life) != lease.life:
            self._forget(replica_id)
        self._lives[replica_id] = lease.life
        self._longest_lease = max(self._longest_lease, lease.seconds)
        self._ends[replica_id] = asyncio.get_running_loop().time() + lease.seconds

    async def _end_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE_CHECK_S)
            now = asyncio.get_running_loop().time()
            for replica_id in [name for name, end in self._ends.items() if end < now]:
                self._forget(replica_id)

    def _forget(self, replica_id: str) -> None:
        """Forget a replica's life and the entries of it."""
        life = self._lives.pop(replica_id, None)
        self._ends.pop(replica_id, None)
        for endpoint_id, entries in list(self._entries.items()):
            if replica_id in entries and entries[replica_id].life == life:
                del entries[replica_id]
                if not entries:
                    del self._entries[endpoint_id]
                self._changed(endpoint_id)

    def _changed(self, endpoint_id: str) -> None:
        if self._on_change is not None:
            self._on_change(endpoint_id)
