"""The management server of a gateway with several workers: one port for all of them.

Health and metrics are asked of each worker and joined here; the API is in fleet_api.py.
"""

from __future__ import annotations

import http
import json
from collections.abc import Iterable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from kaa_gateway.admin.access import Guard
from kaa_gateway.admin.exposition import merge_metrics
from kaa_gateway.admin.fleet import Fleet
from kaa_gateway.admin.port import ManagementPort
from kaa_gateway.supervision.processes import WorkerProcesses


class FleetServer:
    """Serves `/health/live`, `/health/ready` and `/metrics` of all workers together, and `routes`.

    The gateway becomes ready when each worker has been ready, and stays so while at least one is: the kernel gives new
    connections to the workers that listen. It is not ready while it stops. `program` begins the names of metrics.
    """

    def __init__(
        self,
        fleet: Fleet,
        processes: WorkerProcesses,
        routes: Iterable[web.RouteDef] = (),
        guard: Guard | None = None,
        program: str = "kaa_gateway",
    ) -> None:
        self._fleet = fleet
        self._processes = processes
        self._never_ready = set(fleet.sockets)
        self.registry = CollectorRegistry()
        """Metrics of the supervisor's own."""
        self.registry.register(FleetCollector(processes, program))
        own = [
            web.get("/health/live", self._live),
            web.get("/health/ready", self._ready),
            web.get("/metrics", self._metrics),
        ]
        self._port = ManagementPort(guard or Guard(None), [*own, *routes])

    async def start(self, host: str, port: int) -> None:
        """Listen; OSError if the port is taken."""
        await self._port.start(host, port)

    async def stop(self) -> None:
        """Stop listening, and close the connections."""
        await self._port.stop()

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "UP"})

    async def _ready(self, request: web.Request) -> web.Response:
        answers = await self._fleet.ask("/health/ready")
        workers = {}
        for index, answer in answers.items():
            if answer.status == http.HTTPStatus.OK:
                self._never_ready.discard(index)
            workers[str(index)] = (
                json.loads(answer.body) if answer.body else {"status": "DOWN", "reason": "It does not run"}
            )
        serving = any(answer.status == http.HTTPStatus.OK for answer in answers.values())
        if serving and not self._never_ready and not self._processes.stopping:
            return web.json_response({"status": "UP", "workers": workers})
        return web.json_response({"status": "DOWN", "workers": workers}, status=503)

    async def _metrics(self, request: web.Request) -> web.Response:
        answers = await self._fleet.ask("/metrics")
        texts = {
            index: answer.body.decode()
            for index, answer in answers.items()
            if answer.status == http.HTTPStatus.OK
        }
        body = generate_latest(self.registry).decode() + merge_metrics(texts)
        return web.Response(body=body.encode(), headers={"Content-Type": CONTENT_TYPE_LATEST})


class FleetCollector(Collector):
    """The metrics of the supervisor about its workers."""

    def __init__(self, processes: WorkerProcesses, program: str) -> None:
        self._processes = processes
        self._program = program

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        """Read the counts now."""
        starts = CounterMetricFamily(
            f"{self._program}_worker_starts", "How often a worker was started.", labels=["worker"]
        )
        for index, count in self._processes.starts.items():
            starts.add_metric([str(index)], count)
        hangs = CounterMetricFamily(
            f"{self._program}_worker_hangs",
            "How often a worker was killed because it hung.",
            labels=["worker"],
        )
        for index, count in self._processes.hangs.items():
            hangs.add_metric([str(index)], count)
        workers = GaugeMetricFamily(
            f"{self._program}_workers",
            "Workers that the configuration asks for.",
            len(self._processes.starts),
        )
        return [workers, starts, hangs]
