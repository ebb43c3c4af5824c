"""Runs workers until a signal: one in this process, or several in processes of their own that share the ports.

SIGTERM and SIGINT drain; a worker process that dies is started again, after a growing pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import time
from typing import TYPE_CHECKING

import structlog
import uvloop

from gateway import logs
from gateway.errors import GatewayError
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
    if config.workers == 1:
        _run_worker(config, 0)
        return 0
    return _Supervisor(config).run()


def _run_worker(config: Config, index: int) -> None:
    async def main() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            # Readable when the supervisor is gone, even if it was killed: then nobody would stop us.
            asyncio.get_running_loop().add_reader(parent.sentinel, _on_parent_death, parent.sentinel)
        worker = Worker(config, index)
        await serve(worker.start, worker.stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def _on_parent_death(sentinel: int) -> None:
    asyncio.get_running_loop().remove_reader(sentinel)
    log.error("the supervisor has gone; stopping")
    signal.raise_signal(signal.SIGTERM)


def _worker_process(config: Config, index: int) -> None:
    """What a worker process runs."""
    logs.configure(config.log.level, config.log.format)
    # A terminal sends Ctrl-C to us too; before we can handle it, it is the supervisor's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _run_worker(config, index)
    except GatewayError as error:
        log.error("worker cannot start", worker=index, error=error.detail or str(error))
        raise SystemExit(EXIT_CANNOT_START) from None


class _Supervisor:
    """Several worker processes, started again when they die."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, SpawnProcess] = {}
        self._started_at: dict[int, float] = {}
        self._pause: dict[int, float] = {}
        self._restart_at: dict[int, float] = {}
        self._stopping = False
        self._exit_code = 0

    def run(self) -> int:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        for index in range(self._config.workers):
            self._start(index)
        while not self._stopping:
            time.sleep(POLL_PERIOD)
            self._look()
        self._stop()
        return self._exit_code

    def _on_signal(self, number: int, frame: object) -> None:
        self._stopping = True

    def _start(self, index: int) -> None:
        process = self._context.Process(
            target=_worker_process, args=(self._config, index), name=f"kaa-gateway-{index}"
        )
        process.start()
        self._processes[index] = process
        self._started_at[index] = time.monotonic()
        self._restart_at.pop(index, None)

    def _look(self) -> None:
        now = time.monotonic()
        for index, process in list(self._processes.items()):
            if process.is_alive() or index in self._restart_at:
                continue
            if process.exitcode == EXIT_CANNOT_START:
                self._exit_code = 1
                self._stopping = True
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

    def _stop(self) -> None:
        for process in self._processes.values():
            if process.is_alive():
                process.terminate()
        deadline = time.monotonic() + self._config.service.graceful_shutdown + STOP_MARGIN
        for process in self._processes.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                log.error("worker did not drain in time, killing it", worker=process.name)
                process.kill()
                with contextlib.suppress(OSError):
                    process.join()
