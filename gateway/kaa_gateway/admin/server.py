"""The management server of a worker: liveness, readiness, metrics, and the API.

A worker on its own serves them on the management port. If there are several workers, each serves them on a Unix socket,
and the supervisor has the port (fleet_server.py).
"""

from __future__ import annotations

import http
from collections.abc import Callable, Iterable
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from kaa_gateway.admin.access import Guard
from kaa_gateway.admin.port import ManagementPort

Obstacles = Callable[[], list[str]]
"""Returns the reasons why devices are not served now; none if they are."""


class AdminServer:
    """Serves health, metrics and `routes`. The worker is ready while `obstacles` returns none."""

    def __init__(
        self,
        registry: CollectorRegistry,
        obstacles: Obstacles,
        routes: Iterable[web.RouteDef] = (),
        guard: Guard | None = None,
    ) -> None:
        self._registry = registry
        self._obstacles = obstacles
        own = [
            web.get("/health/live", self._live),
            web.get("/health/ready", self._ready),
            web.get("/metrics", self._metrics),
        ]
        self._port = ManagementPort(guard or Guard(None), [*own, *routes])

    async def start(self, host: str, port: int) -> None:
        """Listen on a port; OSError if it is taken."""
        await self._port.start(host, port)

    async def start_on_socket(self, path: Path) -> None:
        """Listen on a Unix socket; replace the file of an earlier worker."""
        await self._port.start_on_socket(path)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port.port

    async def stop(self) -> None:
        """Stop listening, and close the connections."""
        await self._port.stop()

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "UP"})

    async def _ready(self, request: web.Request) -> web.Response:
        obstacles = self._obstacles()
        if not obstacles:
            return web.json_response({"status": "UP"})
        return web.json_response(
            {"status": "DOWN", "reason": "; ".join(obstacles)}, status=http.HTTPStatus.SERVICE_UNAVAILABLE
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )
