"""A management server's port or Unix socket, and the aiohttp application behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from aiohttp import web

from kaa_gateway.admin.access import Guard
from kaa_gateway.admin.connections import REQUEST_TIMEOUT, Connections
from kaa_gateway.admin.problems import as_problems

BODY_SIZE_MAX = 4096
"""Bytes of a request's body."""
STOP_TIMEOUT = 1.0
"""Seconds that requests have to be answered when the server stops, and again to end when they are cancelled."""


class ManagementPort:
    """Serves routes, guarded, on a port or on a Unix socket."""

    def __init__(self, guard: Guard, routes: Iterable[web.RouteDef]) -> None:
        self._connections = Connections()
        app = web.Application(
            middlewares=[self._connections.middleware, as_problems, guard.middleware],
            client_max_size=BODY_SIZE_MAX,
        )
        app.add_routes(routes)
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=REQUEST_TIMEOUT, shutdown_timeout=STOP_TIMEOUT
        )
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen on a port; OSError if it is taken."""
        await self._runner.setup()
        self._connections.make_protocol = self._runner.server
        self._server = await asyncio.get_running_loop().create_server(
            self._connections, None if host == "*" else host, port
        )

    async def start_on_socket(self, path: Path) -> None:
        """Listen on a Unix socket, for the supervisor; replace the file of an earlier worker."""
        await self._runner.setup()
        await web.UnixSite(self._runner, str(path)).start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening, give open requests STOP_TIMEOUT to be answered, and close the connections."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
