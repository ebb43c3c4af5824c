"""Shares quotas between the workers of a service instance: each tells the others what its devices ask for.

Twice a second, a worker publishes its demand for each limited tenant and application version, and takes its share of
the next interval (shares.py). Nothing here runs per message. While NATS is away, a worker keeps its last shares.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
import structlog
from msgspec import Meta, Struct

from kaa_gateway.bus import subjects
from kaa_gateway.errors import UNDECODABLE, BusError
from kaa_gateway.fleet.shares import share_of
from kaa_gateway.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kaa_gateway.bus.control import Control
    from kaa_gateway.fleet.usage import Usage

log = structlog.get_logger("gateway.fleet")

PERIOD = 0.5
"""Seconds between the messages of a worker. Intervals begin at the same time everywhere, as far as clocks agree."""
ARRIVAL = 0.1
"""Seconds in which the messages of an interval arrive: then all workers take their shares from the same demands."""
FORGOTTEN_AFTER = 3.0
"""Seconds of silence after which a worker counts as gone, while NATS is there."""
WEIGHT = 0.5
"""Of the newest measurement in a demand."""
WORKERS_MAX = 1000
"""Workers that are remembered."""


Rate = Annotated[float, Meta(ge=0, le=1e15)]
Count = Annotated[int, Meta(ge=0, le=10**12)]


class Demand(Struct, frozen=True, array_like=True):
    """What the devices of one worker ask for, of one tenant or application version."""

    messages: Rate
    """A second, refused ones included."""
    bytes: Rate
    connections: Count
    endpoints: Count


NO_DEMAND = Demand(0, 0, 0, 0)


class QuotaDemands(Struct, frozen=True, kw_only=True):
    """The demands of one worker, by scope and name."""

    replica: Annotated[str, Meta(max_length=256)]
    demands: dict[str, Demand]
    leaves: bool = False


class _Heard(NamedTuple):
    at: float
    demands: dict[str, Demand]


class _Measured(NamedTuple):
    messages_asked: int
    bytes_asked: int
    messages: float
    bytes: float


def subject_of(instance: str) -> str:
    """Return the subject on which the workers of an instance publish their demands."""
    return subjects.service(instance, "gateway", QuotaDemands.__name__)


class QuotaSharing:
    """Keeps the shares of one worker. `usages` returns what is limited now.

    `workers` are those of this gateway. `count` counts an event with its reason.
    """

    def __init__(
        self,
        control: Control,
        instance: str,
        replica_id: str,
        usages: Callable[[], Iterable[Usage]],
        workers: int,
        count: Callable[[str, str], None],
    ) -> None:
        self._control = control
        self._count = count
        self._subject = subject_of(instance)
        self._replica_id = replica_id
        self._usages = usages
        self._workers = workers
        self._heard: dict[str, _Heard] = {}
        self._measured: dict[str, _Measured] = {}
        self._measured_at = 0.0
        self._task: asyncio.Task[None] | None = None
        control.subscribe(self._subject, self._on_demands)
        control.when_reconnected(self._on_reconnected)

    def start(self) -> None:
        """Begin to share."""
        loop = asyncio.get_running_loop()
        self._measured_at = loop.time()
        self._share({})
        self._task = loop.create_task(self._run(), name="quota-sharing")

    async def stop(self) -> None:
        """Leave the shares to the others."""
        if self._task is not None:
            await end_tasks([self._task])
            await self._publish({}, leaves=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._take_shares()
            except Exception:
                # The next interval has shares of its own.
                log.exception("quotas could not be shared")
            await asyncio.sleep(PERIOD - time.time() % PERIOD)

    async def _take_shares(self) -> None:
        """Tell the others what is asked for, and take the shares of the next interval."""
        demands = self._measure()
        if demands or self._heard:
            await self._publish(demands)
        await asyncio.sleep(ARRIVAL)
        if self._control.connected:
            self._forget_silent()
            self._share(demands)

    # ------------------------------------------------------------ own demands

    def _measure(self) -> dict[str, Demand]:
        """Return the demands of this worker since the last time, smoothed."""
        now = asyncio.get_running_loop().time()
        elapsed = max(now - self._measured_at, PERIOD / 4)
        self._measured_at = now
        demands = {}
        measured = {}
        for usage in self._usages():
            key = f"{usage.scope} {usage.name}"
            messages = size = 0.0
            if usage.quota is not None:
                asked, asked_bytes = usage.quota.messages_asked, usage.quota.bytes_asked
                before = self._measured.get(key) or _Measured(asked, asked_bytes, 0.0, 0.0)
                messages = _smoothed(before.messages, (asked - before.messages_asked) / elapsed)
                size = _smoothed(before.bytes, (asked_bytes - before.bytes_asked) / elapsed)
                measured[key] = _Measured(asked, asked_bytes, messages, size)
            demands[key] = Demand(messages, size, usage.population.connections, usage.population.endpoints)
        self._measured = measured
        return demands

    async def _publish(self, demands: dict[str, Demand], *, leaves: bool = False) -> None:
        message = QuotaDemands(
            replica=self._replica_id,
            demands={key: each for key, each in demands.items() if each != NO_DEMAND},
            leaves=leaves,
        )
        try:
            await self._control.publish(self._subject, msgspec.json.encode(message))
        except BusError as error:
            log.debug("quota demands are not published", error=str(error))

    # ------------------------------------------------------------ those of the others

    def _on_demands(self, subject: str, datum: bytes) -> None:
        try:
            message = msgspec.json.decode(datum, type=QuotaDemands)
        except UNDECODABLE as error:
            self._count("dropped", "quota_demands_malformed")
            log.debug("quota demands of another worker cannot be read", error=str(error))
            return
        if message.replica == self._replica_id:
            return
        if message.leaves:
            self._heard.pop(message.replica, None)
            return
        if message.replica not in self._heard and len(self._heard) >= WORKERS_MAX:
            self._count("dropped", "too_many_quota_workers")
            return
        self._heard[message.replica] = _Heard(asyncio.get_running_loop().time(), message.demands)

    def _on_reconnected(self) -> None:
        """Count the silence of the others anew: nothing could be heard."""
        now = asyncio.get_running_loop().time()
        self._heard = {name: _Heard(now, each.demands) for name, each in self._heard.items()}

    def _forget_silent(self) -> None:
        now = asyncio.get_running_loop().time()
        for name in [name for name, each in self._heard.items() if now - each.at > FORGOTTEN_AFTER]:
            del self._heard[name]

    # ------------------------------------------------------------ shares

    def _share(self, demands: dict[str, Demand]) -> None:
        """Take the shares that this worker's demands have beside those of the others."""
        workers = max(1 + len(self._heard), self._workers)
        for usage in self._usages():
            key = f"{usage.scope} {usage.name}"
            own = demands.get(key, NO_DEMAND)
            others = [each.demands.get(key, NO_DEMAND) for each in self._heard.values()]
            usage.population.set_elsewhere(
                sum(each.connections for each in others), sum(each.endpoints for each in others)
            )
            if usage.quota is not None:
                rates = usage.quota.rates
                rates.set_shares(
                    share_of(rates.messages_max, own.messages, [each.messages for each in others], workers),
                    share_of(rates.bytes_max, own.bytes, [each.bytes for each in others], workers),
                )


def _smoothed(before: float, new: float) -> float:
    value = before + WEIGHT * (new - before)
    return value if value > 1e-3 else 0.0  # else it never becomes zero
