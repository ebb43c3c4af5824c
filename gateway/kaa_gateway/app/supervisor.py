"""Runs workers until a signal: one in this process, or several in processes of their own that share the ports.

SIGTERM and SIGINT drain, SIGHUP reads the configuration again; a worker process that dies is started again, after a
growing pause. The supervisor of several serves their management API, and reads the configuration for them; it has no
part in what devices send.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvloop

from kaa_gateway import logs
from kaa_gateway.admin.access import Guard
from kaa_gateway.admin.fleet import Fleet, FleetServer
from kaa_gateway.admin.fleet_api import FleetApi
from kaa_gateway.app.reload import ReloadCollector, Reloader
from kaa_gateway.app.worker import Worker
from kaa_gateway.errors import GatewayError
from kaa_gateway.net.ports import taking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from kaa_gateway.config import Config

log = structlog.get_logger("gateway")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
RESTART_FIRST = 0.5
"""Seconds before a dead worker is started again; doubles while it keeps dying."""
RESTART_MAX = 30.0
HEALTHY_AFTER = 60.0
"""Seconds after which a worker's earlier deaths are forgotten."""
POLL_PERIOD = 0.1
"""Seconds between looks at the worker processes."""
STOP_MARGIN = 10.0
"""Seconds beyond graceful-shutdown after which a worker process is killed."""
SEND_TIMEOUT = 30.0
"""Seconds that a worker has to take a new configuration before it is killed."""
EXIT_CANNOT_START = 2
"""Exit code of a worker that cannot start, and would not by trying again."""


async def serve(
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
    hang_up: Callable[[], None] | None = None,
) -> None:
    """Await `start`, then SIGTERM or SIGINT, then `stop`; a signal during the start cancels it.

    `hang_up` is called at each SIGHUP.

    `stop` is awaited whatever happens, and must bear a start that came only half way. What `start` raised is raised
    after it.
    """
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in SIGNALS:
        loop.add_signal_handler(number, signalled.set)
    if hang_up is not None:
        loop.add_signal_handler(signal.SIGHUP, hang_up)
    waiting = loop.create_task(signalled.wait())
    starting = loop.create_task(_awaited(start))
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            await waiting
    finally:
        for task in (starting, waiting):
            task.cancel()
        await asyncio.wait({starting, waiting})
        await stop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
        if hang_up is not None:
            loop.remove_signal_handler(signal.SIGHUP)


async def _awaited(action: Callable[[], Awaitable[None]]) -> None:
    await action()


def run(config: Config, path: Path, environ: Mapping[str, str]) -> int:
    """Serve until a signal; the exit code. GatewayError if it cannot start.

    `path` and `environ` are what `config` was loaded from, and is again when it changes.
    """
    several = config.workers > 1
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run((_run_several if several else _run_alone)(config, path, environ))


async def _run_alone(config: Config, path: Path, environ: Mapping[str, str]) -> int:
    worker = Worker(config)
    reloader = Reloader(path, environ, config, worker.reconfigure)
    worker.registry.register(ReloadCollector(reloader))
    worker.subscribe_announcements(lambda: reloader.request("17/SCMP"))

    async def start() -> None:
        await worker.start()
        reloader.start()

    async def stop() -> None:
        await reloader.stop()
        await worker.stop()

    await serve(start, stop, lambda: reloader.request("SIGHUP"))
    return 0


async def _run_several(config: Config, path: Path, environ: Mapping[str, str]) -> int:
    with tempfile.TemporaryDirectory(prefix="kaa-gateway-") as directory:
        supervisor = _Supervisor(config, Path(directory), path, environ)
        await serve(supervisor.start, supervisor.stop, lambda: supervisor.reloader.request("SIGHUP"))
        return supervisor.exit_code


# ------------------------------------------------------------ in a worker process


def _worker_process(config: Config, index: int, admin_socket: Path, supervisor: Connection) -> None:
    """What a worker process runs."""
    logs.configure(config.log.level, config.log.format)
    # A terminal sends Ctrl-C to us too; before we can handle it, it is the supervisor's. So is its end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run_in_process(config, index, admin_socket, supervisor))
    except GatewayError as error:
        log.error("worker cannot start", worker=index, error=error.detail or str(error))
        raise SystemExit(EXIT_CANNOT_START) from None


async def _run_in_process(config: Config, index: int, admin_socket: Path, supervisor: Connection) -> None:
    loop = asyncio.get_running_loop()
    worker = Worker(config, index, admin_socket)
    worker.subscribe_announcements(lambda: supervisor.send(None))
    configuring: asyncio.Task[None] | None = None
    orphaned = False

    def hear() -> None:
        nonlocal configuring, orphaned
        try:
            new: Config = supervisor.recv()
        except (EOFError, OSError):
            # The supervisor is gone, even if it was killed: nobody else would stop us.
            orphaned = True
            loop.remove_reader(supervisor.fileno())
            log.error("the supervisor has gone; stopping")
            signal.raise_signal(signal.SIGTERM)
            return
        configuring = loop.create_task(worker.reconfigure(new))

    loop.add_reader(supervisor.fileno(), hear)
    await serve(worker.start, worker.stop)
    if orphaned:
        # Nor would anybody else remove the sockets; the last worker finds their directory empty.
        admin_socket.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            admin_socket.parent.rmdir()


# ------------------------------------------------------------ in the supervisor


class _Supervisor:
    """Several worker processes, started again when they die. Their sockets are in `directory`.

    Over its connection a worker is sent each new configuration, and sends None when the cluster announces one.
    """

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
        self._stopping = False
        self._looking: asyncio.Task[None] | None = None
        self._fleet = Fleet({index: directory / f"worker-{index}.sock" for index in range(config.workers)})
        self._admin = FleetServer(
            self._fleet,
            lambda: self._stopping,
            FleetApi(lambda: self._config, self._fleet).routes(),
            Guard.from_file(config.server.token_file),
        )
        self._admin.registry.register(ReloadCollector(self.reloader))
        self.exit_code = 0

    async def start(self) -> None:
        """Serve management, and start the workers. PortError if the management port is taken."""
        with taking("server.port", self._config.server.port):
            await self._admin.start(self._config.transports.bind_address, self._config.server.port)
        for index in self._fleet.sockets:
            self._start(index)
        self._looking = self._loop.create_task(self._look_again())
        self.reloader.start()

    async def stop(self) -> None:
        """Have all workers drain, and kill those that do not in time."""
        self._stopping = True
        await self.reloader.stop()
        if self._looking is not None:
            self._looking.cancel()
        for process in self._processes.values():
            if process.is_alive():
                process.terminate()
        deadline = self._loop.time() + self._config.service.graceful_shutdown + STOP_MARGIN
        while any(process.is_alive() for process in self._processes.values()):
            if self._loop.time() > deadline:
                self._kill()
            await asyncio.sleep(POLL_PERIOD)
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
            # Aside, because a worker that hangs would hold us up.
            async with asyncio.timeout(SEND_TIMEOUT):
                await asyncio.to_thread(self._connections[index].send, config)
        except OSError:
            log.debug("worker is gone, and begins with the new configuration", worker=index)
        except TimeoutError:
            log.error("worker does not take the new configuration, killing it", worker=index)
            self._processes[index].kill()

    def _hear(self, index: int, connection: Connection) -> None:
        try:
            connection.recv()
        except (EOFError, OSError):
            self._loop.remove_reader(connection.fileno())
            return
        self.reloader.request("17/SCMP")

    def _connect(self, index: int) -> Connection:
        """A new connection to a worker; its end of it."""
        if (former := self._connections.pop(index, None)) is not None:
            self._loop.remove_reader(former.fileno())
            former.close()
        ours, theirs = self._context.Pipe()
        self._connections[index] = ours
        self._loop.add_reader(ours.fileno(), self._hear, index, ours)
        return theirs

    def _start(self, index: int) -> None:
        theirs = self._connect(index)
        process = self._context.Process(
            target=_worker_process,
            args=(self._config, index, self._fleet.sockets[index], theirs),
            name=f"kaa-gateway-{index}",
        )
        process.start()
        # So that we hear of its end, and it of ours.
        theirs.close()
        self._fleet.starts[index] += 1
        self._processes[index] = process
        self._started_at[index] = self._loop.time()
        self._restart_at.pop(index, None)

    async def _look_again(self) -> None:
        while not self._stopping:
            await asyncio.sleep(POLL_PERIOD)
            self._look()

    def _look(self) -> None:
        now = self._loop.time()
        for index, process in list(self._processes.items()):
            if process.is_alive() or index in self._restart_at:
                continue
            if process.exitcode == EXIT_CANNOT_START:
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
