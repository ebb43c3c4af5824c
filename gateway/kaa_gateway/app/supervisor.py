"""The supervisor of several worker processes that share the ports of devices.

A worker that dies is started again, after a growing pause; one whose event loop hangs is killed before. A worker that
cannot start again does not end those that serve. The supervisor serves the management API of all workers, and
reads the configuration for them. It has no part in what devices send.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
from typing import TYPE_CHECKING

import structlog

from kaa_gateway import logs
from kaa_gateway.admin.access import Guard
from kaa_gateway.admin.fleet import Fleet
from kaa_gateway.admin.fleet_api import FleetApi
from kaa_gateway.admin.fleet_server import FleetServer
from kaa_gateway.app.port_probe import probe_ports
from kaa_gateway.app.reload import ReloadCollector, Reloader
from kaa_gateway.app.shared_sockets import BoundSockets, bind_datagram_sockets, close_datagram_sockets
from kaa_gateway.app.worker_process import EXIT_CANNOT_START, Report, run_worker
from kaa_gateway.net.ports import port_errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from pathlib import Path

    from kaa_gateway.config import Config

log = structlog.get_logger("gateway")

RESTART_FIRST = 0.5
"""Seconds before a dead worker is started again; doubles while it keeps dying."""
RESTART_MAX = 30.0
HEALTHY_AFTER = 60.0
"""Seconds after which a worker's earlier deaths are forgotten."""
POLL_PERIOD = 0.1
"""Seconds between looks at the worker processes."""
STOP_MARGIN = 10.0
"""Seconds beyond graceful-shutdown after which a worker process is killed."""
HANG_TIMEOUT = 30.0
"""Seconds without a report after which a worker hangs, and is killed."""
START_TIMEOUT = 120.0
"""The same for its first report, before which it imports its modules."""
SUSPENDED_AFTER = 5.0
"""Seconds between two looks after which this process was suspended, perhaps with its workers."""
SEND_TIMEOUT = 30.0
"""Seconds that a worker has to take a new configuration before it is killed."""


class Supervisor:
    """Several worker processes, started again when they die. Their management sockets are in `directory`."""

    def __init__(self, config: Config, directory: Path, path: Path, environ: Mapping[str, str]) -> None:
        self.reloader = Reloader(path, environ, config, self._configure)
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, SpawnProcess] = {}
        self._connections: dict[int, Connection] = {}
        self._started_at: dict[int, float] = {}
        self._pause: dict[int, float] = {}
        self._restart_at: dict[int, float] = {}
        self._hangs_at: dict[int, float] = {}
        """When each worker counts as hanging, unless it reports before."""
        self._checked_at = self._loop.time()
        self._has_served = False
        """Whether a worker has ever served. Until then, the gateway ends when none of them can start."""
        self._cannot_start: set[int] = set()
        self._stopping = False
        self._watching: asyncio.Task[None] | None = None
        self._fleet = Fleet({index: directory / f"worker-{index}.sock" for index in range(config.workers)})
        self._admin = FleetServer(
            self._fleet,
            lambda: self._stopping,
            FleetApi(lambda: self._config, self._fleet).routes(),
            Guard.from_file(config.server.token_file),
        )
        self._admin.registry.register(ReloadCollector(self.reloader))
        self._datagram_sockets: list[BoundSockets] = []
        self.exit_code = 0

    async def start(self) -> None:
        """Serve management, and start the workers. Raises PortError if a port is taken."""
        with port_errors("server.port", self._config.server.port):
            await self._admin.start(self._config.transports.bind_address, self._config.server.port)
        # Workers share ports with each other, and would share them with another gateway.
        await probe_ports(self._config)
        self._datagram_sockets = bind_datagram_sockets(self._config)
        for index in self._fleet.sockets:
            self._start(index)
        self._watching = self._loop.create_task(self._watch())
        self.reloader.start()

    async def stop(self) -> None:
        """Have all workers drain, and kill those that do not in time."""
        self._stopping = True
        await self.reloader.stop()
        if self._watching is not None:
            self._watching.cancel()
        for process in self._processes.values():
            if process.is_alive():
                process.terminate()
        deadline = self._loop.time() + self._config.service.graceful_shutdown + STOP_MARGIN
        while any(process.is_alive() for process in self._processes.values()):
            if self._loop.time() > deadline:
                self._kill()
            await asyncio.sleep(POLL_PERIOD)
        close_datagram_sockets(self._datagram_sockets)
        await self._admin.stop()

    def _kill(self) -> None:
        for process in self._processes.values():
            if process.is_alive():
                log.error("worker did not drain in time, killing it", worker=process.name)
                with contextlib.suppress(OSError):
                    process.kill()

    async def _configure(self, config: Config) -> None:
        """Give all workers a new configuration; those that are started later begin with it."""
        if config.log.level != self._config.log.level:
            logs.set_level(config.log.level)
        self._config = config
        await asyncio.gather(*(self._send(index, config) for index in list(self._connections)))

    async def _send(self, index: int, config: Config) -> None:
        try:
            # In a thread, because a worker that hangs would block the loop.
            async with asyncio.timeout(SEND_TIMEOUT):
                await asyncio.to_thread(self._connections[index].send, config)
        except OSError:
            log.debug("worker is gone, and begins with the new configuration", worker=index)
        except TimeoutError:
            log.error("worker does not take the new configuration, killing it", worker=index)
            self._processes[index].kill()

    def _receive(self, index: int, connection: Connection) -> None:
        try:
            report = connection.recv()
        except (EOFError, OSError):
            self._loop.remove_reader(connection.fileno())
            return
        self._hangs_at[index] = self._loop.time() + HANG_TIMEOUT
        if report is Report.SERVING:
            self._has_served = True
        elif report is Report.ANNOUNCED:
            self.reloader.request("17/SCMP")

    def _connect(self, index: int) -> Connection:
        """Make a new connection to a worker, and return the worker's end."""
        if (former := self._connections.pop(index, None)) is not None:
            self._loop.remove_reader(former.fileno())
            former.close()
        ours, theirs = self._context.Pipe()
        self._connections[index] = ours
        self._loop.add_reader(ours.fileno(), self._receive, index, ours)
        return theirs

    def _start(self, index: int) -> None:
        theirs = self._connect(index)
        process = self._context.Process(
            target=run_worker,
            args=(self._config, index, self._fleet.sockets[index], theirs, self._datagram_sockets[index]),
            name=f"kaa-gateway-{index}",
        )
        # Its handlers are not there yet: what a terminal or a tool sends to all processes must not end it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
        # So that each process notices the end of the other.
        theirs.close()
        self._fleet.starts[index] += 1
        self._processes[index] = process
        self._started_at[index] = self._loop.time()
        self._hangs_at[index] = self._loop.time() + START_TIMEOUT
        self._restart_at.pop(index, None)

    async def _watch(self) -> None:
        while not self._stopping:
            await asyncio.sleep(POLL_PERIOD)
            self._check()

    def _check(self) -> None:
        now = self._loop.time()
        if now - self._checked_at > SUSPENDED_AFTER:
            for index in self._hangs_at:
                self._hangs_at[index] = max(self._hangs_at[index], now + HANG_TIMEOUT)
        self._checked_at = now
        for index, process in list(self._processes.items()):
            if index in self._restart_at:
                continue
            if process.is_alive():
                if now >= self._hangs_at[index]:
                    self._end_hanging(index, process)
                continue
            if process.exitcode == EXIT_CANNOT_START:
                self._cannot_start.add(index)
            else:
                self._cannot_start.discard(index)
            if not self._has_served and len(self._cannot_start) == len(self._processes):
                self.exit_code = 1
                self._stopping = True
                signal.raise_signal(signal.SIGTERM)
                return
            if now - self._started_at[index] > HEALTHY_AFTER:
                self._pause.pop(index, None)
            pause = self._pause.get(index, RESTART_FIRST)
            self._pause[index] = min(2 * pause, RESTART_MAX)
            self._restart_at[index] = now + pause
            log.error(
                "worker died, starting it again", worker=index, exit_code=process.exitcode, seconds=pause
            )
        for index, at in list(self._restart_at.items()):
            if now >= at:
                self._start(index)

    def _end_hanging(self, index: int, process: SpawnProcess) -> None:
        log.error("worker hangs, killing it", worker=index, pid=process.pid)
        self._fleet.hangs[index] += 1
        self._hangs_at[index] += HANG_TIMEOUT
        with contextlib.suppress(OSError):
            process.kill()
