"""The port of the REST API, and that of its health and metrics."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import structlog
import uvicorn
from kaa_gateway.access import BearerToken
from kaa_gateway.admin.server import AdminServer

from kaa_ext.rest.app import application
from kaa_ext.rest.bounds import REQUEST_TIMEOUT_S, BoundedProtocol
from kaa_ext.rest.certificate import Certificate
from kaa_ext.rest.connection import Connection
from kaa_ext.rest.observation import Metrics
from kaa_ext.rest.services import Instances, Services
from kaa_ext.sdk.addresses import host_and_port, listening

log = structlog.get_logger()

BACKLOG = 128
STOP_TIMEOUT_S = 10
POLL_S = 0.01


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the REST API listens, and who may use it. Without `certificate` (and its key) it has no TLS.

    `management` is HOST:PORT for health and metrics.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token_file: Path | None = None
    certificate: tuple[Path, Path] | None = None
    management: str | None = None
    access_log: bool = False


class RestServer:
    """Serves the REST API.

    Making one binds the port: OSError if that fails, ConfigError if the token's file or the certificate cannot be used,
    ValueError if `management` is no address. States are in the JetStream domain `jetstream_domain`.
    """

    def __init__(
        self,
        nats_urls: Sequence[str],
        settings: Settings,
        instances: Instances,
        jetstream_domain: str | None = None,
    ) -> None:
        token = None if settings.token_file is None else BearerToken(settings.token_file, "--token-file")
        self._certificate = certificate = (
            None if settings.certificate is None else Certificate(*settings.certificate)
        )
        self._management_address = None if settings.management is None else host_and_port(settings.management)
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        self._socket = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        self._connection = Connection(nats_urls, jetstream_domain)
        services = Services(self._connection, instances)
        metrics = Metrics(services)
        self._management = AdminServer(metrics.registry, lambda: _obstacles(services))
        config = uvicorn.Config(
            application(services, token, metrics, access_log=settings.access_log),
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
            ssl_context_factory=None if certificate is None else lambda *_: certificate.context,
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect to NATS, however long it takes, then serve. Raise CannotListen if `management` cannot be bound."""
        if self._management_address is not None:
            with listening(self._management_address):
                await self._management.start(*self._management_address)
        await self._connection.open()
        if self._certificate is not None:
            self._watching = asyncio.create_task(self._certificate.watch())
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started:
            await asyncio.sleep(POLL_S)
        log.info("REST API", port=self.port)

    @property
    def management_port(self) -> int:
        """The port of health and metrics."""
        return self._management.port

    async def stop(self) -> None:
        """Finish the requests in progress, and disconnect."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        if self._watching is not None:
            self._watching.cancel()
        self._socket.close()
        await self._connection.close()
        await self._management.stop()


def _obstacles(services: Services) -> list[str]:
    return [] if services.is_ready else ["NATS cannot be reached"]


class _Server(uvicorn.Server):
    """uvicorn, which leaves signals to kaa_ext.sdk.runner."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield
