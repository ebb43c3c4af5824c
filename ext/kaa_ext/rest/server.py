"""The port of the REST API."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog
import uvicorn
from kaa_gateway.access import BearerToken

from kaa_ext.rest.app import application
from kaa_ext.rest.bounds import REQUEST_TIMEOUT_S, BoundedProtocol
from kaa_ext.rest.connection import Connection
from kaa_ext.rest.services import Instances, Services

log = structlog.get_logger()

BACKLOG = 128
STOP_TIMEOUT_S = 10
POLL_S = 0.01


class RestServer:
    """Serves the REST API.

    Making one binds the port: OSError if that fails, ConfigError if the token's file cannot be used.
    """

    def __init__(
        self, nats_urls: Sequence[str], host: str, port: int, token_file: Path | None, instances: Instances
    ) -> None:
        token = None if token_file is None else BearerToken(token_file, "--token-file")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        self._connection = Connection(nats_urls)
        app = application(Services(self._connection, instances), token)
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(REQUEST_TIMEOUT_S),
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect to NATS, however long it takes, then serve."""
        await self._connection.open()
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started:
            await asyncio.sleep(POLL_S)
        log.info("REST API", port=self.port)

    async def stop(self) -> None:
        """Finish the requests in progress, and disconnect."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        self._socket.close()
        await self._connection.close()


class _Server(uvicorn.Server):
    """uvicorn, which leaves signals to kaa_ext.sdk.runner."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield
