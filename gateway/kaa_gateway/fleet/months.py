"""Counts the messages of a month, over all replicas, in the KV bucket `<instance>-quotas`.

Every few seconds, a worker adds what has passed to the counter of each tenant and application version whose month is
limited, and learns what the others have added. Between two times it counts by itself, also while NATS is away. A month
begins at midnight UTC.
"""

from __future__ import annotations

import asyncio
import base64
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import structlog
from msgspec import Struct

from kaa_gateway.errors import UNDECODABLE, BusError
from kaa_gateway.fleet.bucket import Bucket
from kaa_gateway.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kaa_gateway.bus.control import Control
    from kaa_gateway.fleet.usage import Quota, Usage

log = structlog.get_logger("gateway.fleet")

PERIOD = 2.0
"""Seconds between two additions of a worker."""
STOP_TIMEOUT = 2.0
ATTEMPTS = 20
"""To add to a counter that others add to at the same time."""
CONFLICT_PAUSE = 0.05
"""Seconds at most between two of them."""


class Month(Struct, frozen=True, kw_only=True):
    """The value of a counter."""

    month: str
    """Such as 2026-11."""
    messages: int


class MonthCounters:
    """Adds the messages of one worker to the counters. `usages` returns what is limited now."""

    def __init__(
        self, control: Control, instance: str, usages: Callable[[], Iterable[Usage]], copies: int
    ) -> None:
        self._bucket = Bucket(control, f"{instance}-quotas", copies, lasting=True)
        self._usages = usages
        self._added: dict[str, int] = {}
        """By key: the messages of this worker that are in the counter."""
        self._ready = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to count."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="quota-months")

    async def stop(self) -> None:
        """Add what has passed since the last time, if NATS is there."""
        if self._task is not None:
            await end_tasks([self._task])
            try:
                async with asyncio.timeout(STOP_TIMEOUT):
                    await self._add_all()
            except (BusError, TimeoutError):
                log.warning("the last messages are missing in the month's count")

    async def _run(self) -> None:
        while True:
            try:
                await self._add_all()
                self._bucket.worked()
            except BusError as error:
                self._ready = False
                self._bucket.report(error)
            except Exception:
                # Those of now are added the next time.
                log.exception("the month's messages could not be counted")
            await asyncio.sleep(PERIOD)

    async def _add_all(self) -> None:
        for usage in self._usages():
            if usage.quota is None:
                continue
            key = key_of(usage.scope, usage.name)
            if not usage.quota.month_max:
                self._added[key] = usage.quota.messages_passed
                continue
            if not self._ready:
                await self._bucket.make()
                self._ready = True
            await self._add(key, usage.quota)

    async def _add(self, key: str, quota: Quota) -> None:
        """Add what has passed since the last time to a counter, and tell the quota the sum."""
        passed = quota.messages_passed
        new = passed - self._added.setdefault(key, 0)
        for _ in range(ATTEMPTS):
            counter = await self._bucket.get(key)
            value = _value_of(key, counter.datum)
            now = datetime.now(UTC)
            month = month_of(now)
            used = value.messages if value is not None and value.month == month else 0
            datum = msgspec.json.encode(Month(month=month, messages=used + new))
            if new == 0 or await self._bucket.replace(key, datum, counter.sequence):
                self._added[key] = passed
                # What has passed meanwhile is not in the counter yet.
                quota.set_month(used + new + quota.messages_passed - passed, seconds_left(now))
                return
            await asyncio.sleep(random.uniform(0, CONFLICT_PAUSE))
        log.warning("a month's counter is changed too often by others", key=key)


def _value_of(key: str, datum: bytes | None) -> Month | None:
    if datum is None:
        return None
    try:
        return msgspec.json.decode(datum, type=Month)
    except UNDECODABLE:
        log.warning("a month's counter cannot be read, and begins anew", key=key)
        return None


def key_of(scope: str, name: str) -> str:
    """Return the key of a counter. Names may have dots, which separate the tokens of a key."""
    return f"month.{scope}.{token_of(name)}"


def token_of(name: str) -> str:
    """Return a name as a token of a key: without dots."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def month_of(now: datetime) -> str:
    """Return the name of a month, such as 2026-11."""
    return now.strftime("%Y-%m")


def seconds_left(now: datetime) -> float:
    """Return the seconds until the next month."""
    year, month = divmod(now.year * 12 + now.month, 12)
    return (datetime(year, month + 1, 1, tzinfo=UTC) - now).total_seconds()
