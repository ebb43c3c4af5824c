"""Health and metrics of the extensions of a process, over HTTP.

`/health/live` tells that the event loop runs, `/health/ready` that all extensions take requests, `/metrics` is for
Prometheus. The gateway has the same paths.
"""

from collections.abc import Sequence
from pathlib import Path

from kaa_gateway.admin.server import AdminServer

from kaa_ext.sdk.addresses import host_and_port, listening
from kaa_ext.sdk.metrics import Metrics
from kaa_ext.sdk.runner import Service


class Management:
    """The management server of a process. `address` is HOST:PORT, a port on all addresses, or a Unix socket's path."""

    def __init__(self, address: str | Path, extensions: Sequence[Service]) -> None:
        self._address = address if isinstance(address, Path) else host_and_port(address)
        self._extensions = list(extensions)
        self._server = AdminServer(Metrics(extensions).registry, self._obstacles)

    async def start(self) -> None:
        """Listen. Raise CannotListen if that is not possible."""
        if isinstance(self._address, Path):
            await self._server.start_on_socket(self._address)
            return
        with listening(self._address):
            await self._server.start(*self._address)

    @property
    def port(self) -> int:
        """Return the port that it listens on."""
        return self._server.port

    async def stop(self) -> None:
        """Stop listening."""
        await self._server.stop()

    def _obstacles(self) -> list[str]:
        return [obstacle for extension in self._extensions for obstacle in extension.obstacles]
