"""The management server of a worker: is it alive, is it ready, and its metrics. Never per message.

Of a worker on its own it has the management port; of several, each is asked by the supervisor (fleet.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


class AdminServer:
    """Serves `/health/live`, `/health/ready` and `/metrics`. `is_ready` says whether devices are served."""

    def __init__(self, registry: CollectorRegistry, is_ready: Callable[[], bool]) -> None:
        self._registry = registry
        self._is_ready = is_ready
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen on a port; OSError if it is taken."""
        await web.TCPSite(await self._make_runner(), host, port).start()

    async def start_on_socket(self, path: Path) -> None:
        """Listen on a Unix socket; a file that a worker before this one has left there goes."""
        await web.UnixSite(await self._make_runner(), str(path)).start()

    async def _make_runner(self) -> web.AppRunner:
        app = web.Application()
        app.add_routes(
            [
                web.get("/health/live", self._live),
                web.get("/health/ready", self._ready),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
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
        if self._is_ready():
            return web.json_response({"status": "UP"})
        return web.json_response({"status": "DOWN", "reason": "NATS is not connected"}, status=503)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )
