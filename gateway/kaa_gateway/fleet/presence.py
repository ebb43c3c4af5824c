"""Keeps the presence bucket up to date with the endpoints of one replica.

Changes are gathered and written in groups: endpoints that come and go with the events of 9/ELCE, those that were heard
of with its traffic reports. Nothing here runs per message. A replica whose lease has run out is removed by the others.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import structlog

from kaa_gateway.bus import presence_bucket
from kaa_gateway.bus.presence_bucket import Entry, Lease
from kaa_gateway.errors import BusError
from kaa_gateway.fleet.bucket import Bucket
from kaa_gateway.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kaa_gateway.bus.control import Control

log = structlog.get_logger("gateway.fleet")

GROUP = 50
"""Entries that are written before the event loop goes on: a millisecond or two."""
CONFIRMED = 500
"""Entries after which JetStream must have confirmed them, so that they do not overrun it."""
WINDOW = 0.1
"""Seconds for which changes are gathered."""
RETRY_PAUSE = 1.0
"""Seconds until another attempt after a failure."""
MARKER_TTL = "60s"
"""How long NATS keeps the mark of a key that was removed."""
RENEWALS = 3
"""Of a lease, in its time."""


class Seen(NamedTuple):
    """What a replica knows of an endpoint that it has."""

    app_version: str
    protocol: str
    family: str | None
    since: str


class PresenceWriter:
    """Writes the entries of one replica. `look` returns what is known of an endpoint, None if it is not there."""

    def __init__(
        self,
        control: Control,
        instance: str,
        replica_id: str,
        *,
        lease: float,
        copies: int,
        look: Callable[[str], Seen | None],
        everyone: Callable[[], Iterable[str]],
    ) -> None:
        self._bucket = Bucket(control, presence_bucket.bucket_of(instance), copies, lasting=False)
        self._replica_id = replica_id
        self._life = ""
        self._lease = lease
        self._look = look
        self._everyone = everyone
        self._changed: dict[str, None] = {}
        self._last_seen: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._heard: dict[str, float] = {}
        """The other replicas, and the loop time of their last renewal, or of the last look at their lease."""
        self._leases: dict[str, int] = {}
        """The sequences that the leases had then of replicas that were not heard of."""
        self._renewed = 0.0
        self._leader: str | None = None
        """The NATS server that wrote the bucket when it was looked at last; None without a cluster."""
        self._ready = False
        """The bucket is there, and has all entries that were confirmed."""
        control.when_reconnected(self._on_reconnected)
        control.subscribe(self._bucket.subject(presence_bucket.lease_key("*")), self._on_lease)

    # ------------------------------------------------------------ what has changed

    def appeared(self, endpoint_id: str, app_version: str) -> None:
        """Note that an endpoint has come."""
        self._last_seen[endpoint_id] = _now()
        self._change(endpoint_id)

    def disappeared(self, endpoint_id: str, app_version: str) -> None:
        """Note that an endpoint has gone."""
        self._last_seen.pop(endpoint_id, None)
        self._change(endpoint_id)

    def heard(self, endpoint_ids: Iterable[str]) -> None:
        """Note that these endpoints have sent something since the last report."""
        now = _now()
        for endpoint_id in endpoint_ids:
            if endpoint_id in self._last_seen:
                self._last_seen[endpoint_id] = now
                self._change(endpoint_id)

    def write_all(self) -> None:
        """Write all entries again: some may not have arrived, or were removed by others."""
        for endpoint_id in self._everyone():
            self._last_seen.setdefault(endpoint_id, _now())
            self._change(endpoint_id)
        self._renewed = 0.0

    def _on_reconnected(self) -> None:
        """Begin again: messages on the way may be lost."""
        self._ready = False
        self._wake.set()

    def waiting(self) -> int:
        """Return the number of endpoints whose entries are not written yet."""
        return len(self._changed)

    def _change(self, endpoint_id: str) -> None:
        if self._ready:  # else all are written when it is
            self._changed[endpoint_id] = None
            self._wake.set()

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to write."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run(), name="presence")]

    async def stop(self) -> None:
        """Remove all entries of this replica, if NATS is there."""
        if self._tasks:
            await end_tasks(self._tasks)
            try:
                await self._remove(self._replica_id, await self._bucket.last_sequence())
            except BusError:
                log.info("presence is left to its lease")

    async def _run(self) -> None:
        while True:
            try:
                if not self._ready:
                    await self._begin()
                await self._renew()
                await self._write()
                await self._remove_dead()
                async with asyncio.timeout(self._lease / RENEWALS / 2):
                    await self._wake.wait()
                await asyncio.sleep(WINDOW)
            except TimeoutError:
                continue
            except BusError as error:
                # The bucket may be gone with a NATS server, which keeps it in memory.
                self._ready = False
                self._changed.clear()
                self._bucket.report(error)
                await asyncio.sleep(RETRY_PAUSE)

    async def _begin(self) -> None:
        """Make the bucket if it is not there, and write all that is known, in place of what an earlier life wrote.

        Those who watch the bucket do not see that entries are removed, but that the lease has another life.
        """
        self._life = secrets.token_hex(8)
        await self._bucket.make()
        self._leader = await self._find_leader()
        await self._remove(self._replica_id, await self._bucket.last_sequence())
        await self._find_others()
        self._bucket.worked()
        self._ready = True
        self.write_all()

    async def _renew(self) -> None:
        """Renew the lease, if it is time. One that has run out has taken the entries with it."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now - self._renewed < self._lease / RENEWALS:
            return
        lease = Lease(life=self._life, seconds=self._lease)
        await self._bucket.put(presence_bucket.lease_key(self._replica_id), presence_bucket.encode(lease))
        had_run_out = self._renewed and loop.time() - self._renewed > self._lease
        self._renewed = now
        if had_run_out:
            self.write_all()
        if await self._find_leader() != self._leader:
            # What was written while there was no leader is lost, although what came after it has been confirmed.
            self._ready = False
            self._wake.set()

    async def _find_leader(self) -> str | None:
        answer = await self._bucket.ask("STREAM.INFO", {})
        leader: str | None = (answer.get("cluster") or {}).get("leader")
        return leader

    # ------------------------------------------------------------ entries

    async def _write(self) -> None:
        """Write what has changed. After a failure, what NATS has not confirmed is written again."""
        self._wake.clear()
        while self._changed:
            group = list(self._changed)[:CONFIRMED]
            for endpoint_id in group:
                del self._changed[endpoint_id]
            try:
                await self._write_group(group)
            except BusError:
                self._changed = dict.fromkeys(group) | self._changed
                raise
            await self._renew()

    async def _write_group(self, endpoint_ids: list[str]) -> None:
        """Write some entries. JetStream handles them in order, so the last one's confirmation is that of all."""
        last = len(endpoint_ids) - 1
        for number, endpoint_id in enumerate(endpoint_ids):
            key = presence_bucket.entry_key(endpoint_id, self._replica_id)
            entry = self._entry(endpoint_id)
            headers = None
            if entry is None:
                headers = {presence_bucket.OPERATION: "DEL", "Nats-TTL": MARKER_TTL}
            datum = b"" if entry is None else presence_bucket.encode(entry)
            if number == last:
                await self._bucket.put(key, datum, headers)
            else:
                await self._bucket.put_unconfirmed(key, datum, headers)
            if number % GROUP == GROUP - 1:
                await asyncio.sleep(0)

    def _entry(self, endpoint_id: str) -> Entry | None:
        seen = self._look(endpoint_id)
        if seen is None:
            return None
        return Entry(
            replica=self._replica_id,
            life=self._life,
            app_version=seen.app_version,
            protocol=seen.protocol,
            family=seen.family,
            since=seen.since,
            last_seen=self._last_seen.get(endpoint_id) or seen.since,
        )

    # ------------------------------------------------------------ other replicas

    def _on_lease(self, subject: str, datum: bytes) -> None:
        replica_id = subject.rpartition(".")[2]
        if replica_id != self._replica_id and datum:
            self._heard[replica_id] = asyncio.get_running_loop().time()

    async def _find_others(self) -> None:
        """Find replicas with a lease; one of them may be dead."""
        leases = self._bucket.subject(presence_bucket.lease_key("*"))
        answer = await self._bucket.ask("STREAM.INFO", {"subjects_filter": leases})
        now = asyncio.get_running_loop().time()
        for subject in answer.get("state", {}).get("subjects") or {}:
            self._heard.setdefault(subject.rpartition(".")[2], now)
        self._heard.pop(self._replica_id, None)

    async def _remove_dead(self) -> None:
        """Remove the entries of replicas whose lease was not renewed. Others may do it at the same time.

        That a replica is not heard of says little while NATS servers come and go, so its lease is looked at twice.
        """
        now = asyncio.get_running_loop().time()
        for replica_id in [name for name, heard in self._heard.items() if now - heard > self._lease]:
            last = await self._bucket.last_sequence()
            sequence = (await self._bucket.get(presence_bucket.lease_key(replica_id))).sequence
            if self._leases.get(replica_id) != sequence:
                self._leases[replica_id] = sequence
                self._heard[replica_id] = now
                continue
            await self._remove(replica_id, last)
            del self._heard[replica_id], self._leases[replica_id]
            log.info("presence of a replica removed: its lease has run out", replica=replica_id)

    async def _remove(self, replica_id: str, last: int) -> None:
        """Remove a replica up to this sequence: it may write again before JetStream comes to the request."""
        for key in (f"endpoint.*.{replica_id}", presence_bucket.lease_key(replica_id)):
            await self._bucket.ask("STREAM.PURGE", {"filter": self._bucket.subject(key), "seq": last + 1})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
