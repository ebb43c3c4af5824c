"""The supervisor of several worker processes that share the ports of devices.

It serves the management API of all workers, and reads the configuration for them. It has no part in what devices send.
How workers are started again is in `kaa_gateway.supervision`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from kaa_gateway import logs
from kaa_gateway.admin.access import Guard
from kaa_gateway.admin.fleet import Fleet
from kaa_gateway.admin.fleet_api import FleetApi
from kaa_gateway.admin.fleet_server import FleetServer
from kaa_gateway.admin.replicas_api import ReplicasApi
from kaa_gateway.admin.workers_channel import WorkersChannel
from kaa_gateway.app.port_probe import probe_ports
from kaa_gateway.app.reload import ReloadCollector, Reloader
from kaa_gateway.app.shared_sockets import BoundSockets, bind_datagram_sockets, close_datagram_sockets
from kaa_gateway.app.worker_process import ANNOUNCED, run_worker
from kaa_gateway.fleet.replicas import Replicas
from kaa_gateway.net.ports import port_errors
from kaa_gateway.supervision.processes import WorkerProcesses

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

    from kaa_gateway.config import Config

log = structlog.get_logger("gateway")

STOP_MARGIN = 10.0
"""Seconds beyond graceful-shutdown after which a worker process is killed."""


class Supervisor:
    """Several worker processes, started again when they die. Their management sockets are in `directory`."""

    def __init__(self, config: Config, directory: Path, path: Path, load: Callable[[], Config]) -> None:
        self.reloader = Reloader(path, load, config, self._configure)
        self._config = config
        self._workers = WorkerProcesses(
            config.workers, run_worker, self._arguments, name="kaa-gateway", log=log, on_report=self._receive
        )
        self._fleet = Fleet({index: directory / f"worker-{index}.sock" for index in range(config.workers)})
        replica_id = config.service.instance.replica.id
        channel = WorkersChannel(
            self._fleet, {f"{replica_id}-{index}": index for index in range(config.workers)}
        )
        self._admin = FleetServer(
            self._fleet,
            self._workers,
            [
                *FleetApi(lambda: self._config, self._fleet).routes(),
                *ReplicasApi(Replicas(channel)).routes(),
            ],
            Guard.from_file(config.server.token_file),
        )
        self._admin.registry.register(ReloadCollector(self.reloader))
        self._datagram_sockets: list[BoundSockets] = []

    @property
    def exit_code(self) -> int:
        """The exit code of the gateway: 1 if no worker could start."""
        return self._workers.exit_code

    async def start(self) -> None:
        """Serve management, and start the workers. Raises PortError if a port is taken."""
        with port_errors("server.port", self._config.server.port):
            await self._admin.start(self._config.transports.bind_address, self._config.server.port)
        # Workers share ports with each other, and would share them with another gateway.
        await probe_ports(self._config)
        self._datagram_sockets = bind_datagram_sockets(self._config)
        self._workers.start()
        self.reloader.start()

    async def stop(self) -> None:
        """Have all workers drain, and kill those that do not in time."""
        self._workers.stopping = True
        await self.reloader.stop()
        await self._workers.stop(self._config.service.graceful_shutdown + STOP_MARGIN)
        close_datagram_sockets(self._datagram_sockets)
        await self._admin.stop()

    async def _configure(self, config: Config) -> None:
        """Give all workers a new configuration; those that are started later begin with it."""
        if config.log.level != self._config.log.level:
            logs.set_level(config.log.level)
        self._config = config
        await self._workers.send(config)

    def _arguments(self, index: int, connection: Connection) -> tuple[object, ...]:
        return self._config, index, self._fleet.sockets[index], connection, self._datagram_sockets[index]

    def _receive(self, index: int, report: object) -> None:
        if report is ANNOUNCED:
            self.reloader.request("17/SCMP")
