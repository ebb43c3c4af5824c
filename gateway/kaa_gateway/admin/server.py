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
from kaa_gateway.admin.problems import as_problems

BODY_SIZE_MAX = 4096
"""Bytes of a request's body."""
Obstacles = Callable[[], list[str]]
"""Returns the reasons why devices are not served now; none if they are."""


def application(guard: Guard, routes: Iterable[web.RouteDef]) -> web.Application:
    """Return the application of a management server with these routes."""
    app = web.Application(middlewares=[as_problems, guard.middleware], client_max_size=BODY_SIZE_MAX)
    app.add_routes(routes)
    return app


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
        self._routes = list(routes)
        self._guard = guard or Guard(None)
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen on a port; OSError if it is taken."""
        await web.TCPSite(await self._make_runner(), host, port).start()

    async def start_on_socket(self, path: Path) -> None:
        """Listen on a Unix socket; replace the file of an earlier worker."""
        await web.UnixSite(await self._make_runner(), str(path)).start()

    async def _make_runner(self) -> web.AppRunner:
        own = [
            web.get("/health/live", self._live),
            web.get("/health/ready", self._ready),
            web.get("/metrics", self._metrics),
        ]
        self._runner = web.AppRunner(application(self._guard, [*own, *self._routes]), access_log=None)
        await self._runner.setup()
        return self._runner

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._runner is not None
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Stop listening, and close the connections."""
        if self._runner is not None:
            await self._runner.cleanup()

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
