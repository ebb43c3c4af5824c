"""Counts the messages of a month for each endpoint, over all replicas, in the KV bucket `<instance>-quotas`.

An entry has the counts of many endpoints: of one shard of an application version. So the number of writes depends on
the number of shards, and hardly on that of endpoints. A worker adds to the entry once a minute what has passed, and at
once when an endpoint has sent a hundredth of its month, or is new here and its count is not known.

Between two times, a worker counts by itself, also while NATS is away. A month begins at midnight UTC.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import structlog
from msgspec import Struct

from kaa_gateway.errors import UNDECODABLE, BusError
from kaa_gateway.fleet.bucket import Bucket
from kaa_gateway.fleet.months import ATTEMPTS, CONFLICT_PAUSE, STOP_TIMEOUT, month_of, seconds_left, token_of
from kaa_gateway.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kaa_gateway.bus.control import Control
    from kaa_gateway.fleet.usage import EndpointMonths

log = structlog.get_logger("gateway.fleet")

LOOK_PERIOD = 2.0
"""Seconds between two looks at all shards."""
PERIOD = 60.0
"""Seconds after which a shard with new messages is counted ..."""
JITTER = 0.25
"""... less up to this part of them, so that shards and workers are not counted at once."""
LOOKED_AT_ONCE = 16
"""Shards after which devices are served."""


class Month(Struct, frozen=True, kw_only=True):
    """The value of an entry."""

    month: str
    """Such as 2026-11."""
    messages: dict[str, int]
    """By endpoint ID."""


class EndpointMonthCounters:
    """Adds the messages of one worker to the counts. `months` returns what is limited now, by application version."""

    def __init__(
        self,
        control: Control,
        instance: str,
        months: Callable[[], Mapping[str, EndpointMonths]],
        copies: int,
    ) -> None:
        self._bucket = Bucket(control, f"{instance}-quotas", copies, lasting=True)
        self._months = months
        self._month = ""
        self._next: dict[tuple[str, int], float] = {}
        """When a shard is counted next, by time.monotonic."""
        self._first = 0
        """The shard that is looked at first: one that cannot be counted does not keep the others waiting."""
        self._ready = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to count."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="quota-endpoint-months")

    async def stop(self) -> None:
        """Add what has passed since the last time, if NATS is there."""
        if self._task is None:
            return
        await end_tasks([self._task])
        try:
            async with asyncio.timeout(STOP_TIMEOUT), asyncio.TaskGroup() as group:
                for version, months in self._months().items():
                    for shard in range(months.shard_count):
                        if months.look(shard) != "never":
                            group.create_task(self._count(version, months, shard))
        except* (BusError, TimeoutError):
            log.warning("the last messages are missing in the month's counts of endpoints")

    async def _run(self) -> None:
        while True:
            try:
                await self._count_all()
            except BusError as error:
                self._ready = False
                self._bucket.report(error)
            except Exception:
                # Those of now are added the next time.
                log.exception("the month's messages of endpoints could not be counted")
            await asyncio.sleep(LOOK_PERIOD)

    async def _count_all(self) -> None:
        """Count the shards whose time has come."""
        found = self._months()
        self._begin_month(found)
        for version, months in found.items():
            first = self._first
            for number in range(months.shard_count):
                shard = (first + number) % months.shard_count
                if self._is_due(version, months, shard):
                    self._first = shard + 1
                    await self._count(version, months, shard)
                    self._bucket.worked()
                    self._next[version, shard] = time.monotonic() + PERIOD * (1 - random.uniform(0, JITTER))
                elif number % LOOKED_AT_ONCE == 0:
                    await asyncio.sleep(0)

    def _begin_month(self, found: Mapping[str, EndpointMonths]) -> None:
        month = month_of(datetime.now(UTC))
        if month != self._month:
            self._month = month
            for months in found.values():
                months.forget_counts()

    def _is_due(self, version: str, months: EndpointMonths, shard: int) -> bool:
        when = months.look(shard)
        return when == "now" or (when == "soon" and time.monotonic() >= self._next.get((version, shard), 0.0))

    async def _count(self, version: str, months: EndpointMonths, shard: int) -> None:
        """Add what has passed since the last time to an entry, and tell the quotas the sums."""
        if not self._ready:
            await self._bucket.make()
            self._ready = True
        key = key_of(version, shard)
        for _ in range(ATTEMPTS):
            entry = await self._bucket.get(key)
            now = datetime.now(UTC)
            counts = _counts_of(key, entry.datum, month_of(now))
            quotas = months.quotas(shard)
            passed = {endpoint: quota.messages_passed for endpoint, quota in quotas.items()}
            new = {
                endpoint: count
                for endpoint, quota in quotas.items()
                if (count := passed[endpoint] - quota.messages_counted)
            }
            for endpoint, count in new.items():
                counts[endpoint] = counts.get(endpoint, 0) + count
            datum = msgspec.json.encode(Month(month=month_of(now), messages=counts))
            if not new or await self._bucket.replace(key, datum, entry.sequence):
                for endpoint, quota in quotas.items():
                    quota.messages_counted = passed[endpoint]
                    # What has passed meanwhile is not in the entry yet.
                    uncounted = quota.messages_passed - passed[endpoint]
                    quota.set_month(counts.get(endpoint, 0) + uncounted, seconds_left(now))
                return
            await asyncio.sleep(random.uniform(0, CONFLICT_PAUSE))
        log.warning("the month's counts of endpoints are changed too often by others", key=key)


def key_of(version: str, shard: int) -> str:
    """Return the key of the entry of a shard."""
    return f"endpoint-month.{token_of(version)}.{shard}"


def _counts_of(key: str, datum: bytes | None, month: str) -> dict[str, int]:
    """Return the counts of an entry; none if it is of another month."""
    if datum is None:
        return {}
    try:
        value = msgspec.json.decode(datum, type=Month)
    except UNDECODABLE:
        log.warning("the month's counts of endpoints cannot be read, and begin anew", key=key)
        return {}
    return value.messages if value.month == month else {}
