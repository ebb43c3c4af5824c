"""The management server of a worker: is it alive, is it ready, its metrics, and its API. Never per message.

Of a worker on its own it has the management port; of several, each is asked by the supervisor (fleet.py).
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
"""What keeps devices from being served now; nothing if they are."""


def application(guard: Guard, routes: Iterable[web.RouteDef]) -> web.Application:
    """What both kinds of management server are made of."""
    app = web.Application(middlewares=[as_problems, guard.middleware], client_max_size=BODY_SIZE_MAX)
    app.add_routes(routes)
    return app


class AdminServer:
    """Serves health, metrics and `routes`. `obstacles` says what keeps devices from being served."""

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
        """Listen on a Unix socket; a file that a worker before this one has left there goes."""
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
        """The port it listens on."""
        assert self._runner is not None
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Close."""
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
