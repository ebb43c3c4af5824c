"""9/ELCE traffic reports: messages and payload bytes of each endpoint, in both directions, for each period.

The sessions count; this module reads the counts once a period. Each message is in exactly one report. A report of many
endpoints is several events with the same period.

Source: 9/ELCE, traffic reporting, 0009-ep-traffic-stats.avsc.
"""

from __future__ import annotations

import asyncio
import io
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import structlog
from fastavro import parse_schema, schemaless_writer

from kaa_gateway.bus import subjects

if TYPE_CHECKING:
    from kaa_gateway.bus.control import Control

log = structlog.get_logger("gateway.lifecycle")

DEPARTED_MAX = 10_000
"""Endpoints that are gone and not yet reported; with this many, a report is made at once."""
CHUNK = 500
"""Endpoints that are read, and at most written into one event, before the loop does other things: some milliseconds."""
ROW_OVERHEAD = 2 + 4 * 10
"""Bytes of an endpoint in a report beside its ID, at most: four longs and a length."""

STATISTICS = (
    "totalReceivedPayload",
    "totalSentPayload",
    "totalReceivedMessageCount",
    "totalSentMessageCount",
)
"""In the order of the schema and of `TrafficRow`."""


def _map(values: Any) -> dict[str, Any]:
    return {"type": "map", "values": values}


_STATISTIC = {
    "name": "trafficStat",
    "type": "record",
    "fields": [{"name": name, "type": "long", "default": 0} for name in STATISTICS],
}
TRAFFIC_REPORT_EVENT = parse_schema(
    {
        "namespace": "org.kaaproject.ipc.event.gen.v1.endpoint.traffic.reporting",
        "name": "TrafficReportEvent",
        "type": "record",
        "fields": [
            {"name": "tenantTrafficStats", "type": _map(_map(_map(_STATISTIC)))},
            {"name": "timeFrom", "type": "long"},
            {"name": "timeTo", "type": "long"},
            {"name": "correlationId", "type": "string"},
            {"name": "originatorReplicaId", "type": "string"},
            {"name": "timestamp", "type": "long"},
            {"name": "timeout", "type": "long", "default": 0},
        ],
    }
)
"""Unlike other messages of 3/ISM, it has the common fields last."""


TrafficRow: TypeAlias = tuple[bytes, bytes, int, int, int, int]
"""Application version, endpoint ID, bytes in, bytes out, messages in, messages out."""


class TrafficCounts(Protocol):
    """The part of a worker's endpoints that counts traffic."""

    def report_traffic(self, departed_max: int, on_departed_full: Callable[[], object]) -> None:
        """Begin to count. Call `on_departed_full` when `departed_max` endpoints are gone and not yet reported."""
        ...

    def begin_traffic(self) -> tuple[list[Any], Sequence[TrafficRow]]:
        """Return the endpoints that are there, and the counts of those that are gone."""
        ...

    def take_traffic(self, endpoints: list[Any]) -> Sequence[TrafficRow]:
        """Return the counts of some of those endpoints, and set them to zero."""
        ...


class Owner(NamedTuple):
    """The owner of an endpoint's traffic."""

    tenant: str
    application: str


class TrafficReports:
    """Publishes a report every `period` seconds. `owners` are those of the application versions."""

    def __init__(
        self,
        control: Control,
        endpoints: TrafficCounts,
        instance: str,
        replica_id: str,
        owners: dict[str, Owner],
        period: float,
    ) -> None:
        self._control = control
        self._endpoints = endpoints
        self._replica_id = replica_id
        self._subject = subjects.event(instance, "endpoint", "traffic-reporting", "payload")
        self._owners = dict(owners)
        self._period = period
        self._due = asyncio.Event()
        self._time_from = time.time_ns()
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[Iterable[str]], None]] = []
        endpoints.report_traffic(DEPARTED_MAX, self._due.set)

    def add_listener(self, heard: Callable[[Iterable[str]], None]) -> None:
        """Call `heard` with the IDs of endpoints that have sent something since the last report."""
        self._listeners.append(heard)

    def start(self) -> None:
        """Begin the first period."""
        self._time_from = time.time_ns()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="traffic-reports")

    def add_owners(self, owners: dict[str, Owner]) -> None:
        """Add the application versions of a new configuration; removed ones may still have traffic to report."""
        self._owners |= owners

    async def stop(self) -> None:
        """Report what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            await self._report()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._period):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            try:
                await self._report()
            except Exception:
                # Later traffic must be reported all the same.
                log.exception("a traffic report failed")

    async def _report(self) -> None:
        time_to = time.time_ns()
        report = _Report(
            self._owners, self._control.event_size_max, lambda stats: self._publish(stats, time_from, time_to)
        )
        time_from, self._time_from = self._time_from, time_to
        endpoints, departed = self._endpoints.begin_traffic()
        for start in range(0, len(departed), CHUNK):
            report.add(departed[start : start + CHUNK])
            await asyncio.sleep(0)
        for start in range(0, len(endpoints), CHUNK):
            rows = self._endpoints.take_traffic(endpoints[start : start + CHUNK])
            report.add(rows)
            for heard in self._listeners:
                heard([row[1].decode() for row in rows if row[4]])
            await asyncio.sleep(0)
        report.close()

    def _publish(self, stats: Any, time_from: int, time_to: int) -> None:
        out = io.BytesIO()
        schemaless_writer(
            out,
            TRAFFIC_REPORT_EVENT,
            {
                "tenantTrafficStats": stats,
                "timeFrom": time_from,
                "timeTo": time_to,
                "correlationId": str(uuid.uuid4()),
                "originatorReplicaId": self._replica_id,
                "timestamp": time.time_ns() // 1_000_000,
                "timeout": 0,
            },
        )
        self._control.publish_event(self._subject, out.getvalue())


class _Report:
    """Gathers rows into events by tenant, application and endpoint, of at most `size_max` bytes and `CHUNK` rows."""

    def __init__(self, owners: dict[str, Owner], size_max: int, publish: Callable[[Any], None]) -> None:
        self._owners = owners
        self._size_max = size_max
        self._publish = publish
        self._stats: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
        self._size = 0
        self._rows = 0

    def add(self, rows: Iterable[TrafficRow]) -> None:
        for app_version, endpoint_id, *counts in rows:
            size = len(endpoint_id) + ROW_OVERHEAD
            if self._size + size > self._size_max or self._rows == CHUNK:
                self.close()
            tenant, application = self._owners[app_version.decode()]
            endpoints = self._stats.setdefault(tenant, {}).setdefault(application, {})
            stat = endpoints.setdefault(endpoint_id.decode(), dict.fromkeys(STATISTICS, 0))
            for name, count in zip(STATISTICS, counts, strict=True):
                stat[name] += count
            self._size += size
            self._rows += 1

    def close(self) -> None:
        """Publish what was gathered, if there is anything."""
        if self._stats:
            self._publish(self._stats)
        self._stats = {}
        self._size = self._rows = 0
