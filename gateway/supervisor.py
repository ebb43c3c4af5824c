"""Runs workers until a signal: one in this process, or several in processes of their own that share the ports.

SIGTERM and SIGINT drain; a worker process that dies is started again, after a growing pause. The supervisor of several
serves their management API; it has no part in what devices send.
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

from gateway import logs
from gateway.admin.fleet import Fleet, FleetServer
from gateway.errors import GatewayError
from gateway.ports import taking
from gateway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from multiprocessing.context import SpawnProcess

    from gateway.config import Config

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
EXIT_CANNOT_START = 2
"""Exit code of a worker that cannot start, and would not by trying again."""


async def serve(start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]) -> None:
    """Await `start`, then SIGTERM or SIGINT, then `stop`; a signal during the start cancels it.

    `stop` is awaited whatever happens, and must bear a start that came only half way. What `start` raised is raised
    after it.
    """
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in SIGNALS:
        loop.add_signal_handler(number, signalled.set)
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


async def _awaited(action: Callable[[], Awaitable[None]]) -> None:
    await action()


def run(config: Config) -> int:
    """Serve until a signal; the exit code. GatewayError if it cannot start."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run_alone(config) if config.workers == 1 else _run_several(config))


async def _run_alone(config: Config) -> int:
    worker = Worker(config)
    await serve(worker.start, worker.stop)
    return 0


async def _run_several(config: Config) -> int:
    with tempfile.TemporaryDirectory(prefix="kaa-gateway-") as directory:
        supervisor = _Supervisor(config, Path(directory))
        await serve(supervisor.start, supervisor.stop)
        return supervisor.exit_code


# ------------------------------------------------------------ in a worker process


def _worker_process(config: Config, index: int, admin_socket: Path) -> None:
    """What a worker process runs."""
    logs.configure(config.log.level, config.log.format)
    # A terminal sends Ctrl-C to us too; before we can handle it, it is the supervisor's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run_in_process(config, index, admin_socket))
    except GatewayError as error:
        log.error("worker cannot start", worker=index, error=error.detail or str(error))
        raise SystemExit(EXIT_CANNOT_START) from None


async def _run_in_process(config: Config, index: int, admin_socket: Path) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Readable when the supervisor is gone, even if it was killed: then nobody would stop us.
    asyncio.get_running_loop().add_reader(parent.sentinel, _on_parent_death, parent.sentinel)
    worker = Worker(config, index, admin_socket)
    await serve(worker.start, worker.stop)


def _on_parent_death(sentinel: int) -> None:
    asyncio.get_running_loop().remove_reader(sentinel)
    log.error("the supervisor has gone; stopping")
    signal.raise_signal(signal.SIGTERM)


# ------------------------------------------------------------ in the supervisor


class _Supervisor:
    """Several worker processes, started again when they die. Their sockets are in `directory`."""

    def __init__(self, config: Config, directory: Path) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, SpawnProcess] = {}
        self._started_at: dict[int, float] = {}
        self._pause: dict[int, float] = {}
        self._restart_at: dict[int, float] = {}
        self._stopping = False
        self._looking: asyncio.Task[None] | None = None
        self._fleet = Fleet({index: directory / f"worker-{index}.sock" for index in range(config.workers)})
        self._admin = FleetServer(self._fleet, lambda: self._stopping)
        self.exit_code = 0

    async def start(self) -> None:
        """Serve management, and start the workers. PortError if the management port is taken."""
        with taking("server.port", self._config.server.port):
            await self._admin.start(self._config.transports.bind_address, self._config.server.port)
        for index in self._fleet.sockets:
            self._start(index)
        self._looking = self._loop.create_task(self._look_again())

    async def stop(self) -> None:
        """Have all workers drain, and kill those that do not in time."""
        self._stopping = True
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

    def _start(self, index: int) -> None:
        process = self._context.Process(
            target=_worker_process,
            args=(self._config, index, self._fleet.sockets[index]),
            name=f"kaa-gateway-{index}",
        )
        process.start()
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
