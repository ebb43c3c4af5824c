"""The worker processes of a supervisor.

A worker that dies is started again, after a growing pause; one whose event loop hangs is killed before. A worker that
cannot start again does not end those that serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
from typing import TYPE_CHECKING, Any

from kaa_gateway.supervision.reports import EXIT_CANNOT_START, Report

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

RESTART_FIRST = 0.5
"""Seconds before a dead worker is started again; doubles while it keeps dying."""
RESTART_MAX = 30.0
HEALTHY_AFTER = 60.0
"""Seconds after which a worker's earlier deaths are forgotten."""
POLL_PERIOD = 0.1
"""Seconds between looks at the worker processes."""
HANG_TIMEOUT = 30.0
"""Seconds without a report after which a worker hangs, and is killed."""
START_TIMEOUT = 120.0
"""The same for its first report, before which it imports its modules."""
SUSPENDED_AFTER = 5.0
"""Seconds between two looks after which this process was suspended, perhaps with its workers."""
SEND_TIMEOUT = 30.0
"""Seconds that a worker has to take an object before it is killed."""


class WorkerProcesses:
    """`count` processes, each of which runs `function(*arguments(index, connection))`.

    Over its connection a worker sends reports, and gets what `send` is given. Reports other than `Report` are passed to
    `on_report`. `on_ready` is called when each worker has served once. If no worker can start at first, this process
    gets SIGTERM, and `exit_code` is 1.
    """

    def __init__(
        self,
        count: int,
        function: Callable[..., None],
        arguments: Callable[[int, Connection], tuple[object, ...]],
        *,
        name: str,
        log: Any,
        on_report: Callable[[int, object], None] | None = None,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        self._function = function
        self._arguments = arguments
        self._name = name
        self._log = log
        self._on_report = on_report
        self._on_ready = on_ready
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
        self._have_served: set[int] = set()
        """The workers that have ever served. While there are none, the program ends when none of them can start."""
        self._cannot_start: set[int] = set()
        self._watching: asyncio.Task[None] | None = None
        self.starts = dict.fromkeys(range(count), 0)
        """How often each worker was started."""
        self.hangs = dict.fromkeys(range(count), 0)
        """How often each worker was killed because it hung."""
        self.stopping = False
        self.exit_code = 0

    def start(self) -> None:
        """Start the workers."""
        for index in self.starts:
            self._start(index)
        self._watching = self._loop.create_task(self._watch())

    async def stop(self, timeout: float) -> None:
        """Have all workers drain by SIGTERM, and kill those that take longer than `timeout` seconds."""
        self.stopping = True
        if self._watching is not None:
            self._watching.cancel()
        for process in self._processes.values():
            if process.is_alive():
                process.terminate()
        deadline = self._loop.time() + timeout
        while any(process.is_alive() for process in self._processes.values()):
            if self._loop.time() > deadline:
                self._kill()
            await asyncio.sleep(POLL_PERIOD)

    async def send(self, message: object) -> None:
        """Send an object to all workers. One that is gone gets nothing; one that does not take it in time is killed."""
        await asyncio.gather(*(self._send(index, message) for index in list(self._connections)))

    def _kill(self) -> None:
        for process in self._processes.values():
            if process.is_alive():
                self._log.error("worker did not drain in time, killing it", worker=process.name)
                with contextlib.suppress(OSError):
                    process.kill()

    async def _send(self, index: int, message: object) -> None:
        try:
            # In a thread, because a worker that hangs would block the loop.
            async with asyncio.timeout(SEND_TIMEOUT):
                await asyncio.to_thread(self._connections[index].send, message)
        except OSError:
            self._log.debug("worker is gone, and begins with the new configuration", worker=index)
        except TimeoutError:
            self._log.error("worker does not take the new configuration, killing it", worker=index)
            self._processes[index].kill()

    def _receive(self, index: int, connection: Connection) -> None:
        try:
            report = connection.recv()
        except (EOFError, OSError):
            self._loop.remove_reader(connection.fileno())
            return
        self._hangs_at[index] = self._loop.time() + HANG_TIMEOUT
        if report is Report.SERVING:
            self._served(index)
        elif report is not Report.ALIVE and self._on_report is not None:
            self._on_report(index, report)

    def _served(self, index: int) -> None:
        before = len(self._have_served)
        self._have_served.add(index)
        if before < len(self._have_served) == len(self.starts) and self._on_ready is not None:
            self._on_ready()

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
            target=self._function, args=self._arguments(index, theirs), name=f"{self._name}-{index}"
        )
        # Its handlers are not there yet: what a terminal or a tool sends to all processes must not end it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
        # So that each process notices the end of the other.
        theirs.close()
        self.starts[index] += 1
        self._processes[index] = process
        self._started_at[index] = self._loop.time()
        self._hangs_at[index] = self._loop.time() + START_TIMEOUT
        self._restart_at.pop(index, None)

    async def _watch(self) -> None:
        while not self.stopping:
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
            if not self._have_served and len(self._cannot_start) == len(self._processes):
                self.exit_code = 1
                self.stopping = True
                signal.raise_signal(signal.SIGTERM)
                return
            if now - self._started_at[index] > HEALTHY_AFTER:
                self._pause.pop(index, None)
            pause = self._pause.get(index, RESTART_FIRST)
            self._pause[index] = min(2 * pause, RESTART_MAX)
            self._restart_at[index] = now + pause
            self._log.error(
                "worker died, starting it again", worker=index, exit_code=process.exitcode, seconds=pause
            )
        for index, at in list(self._restart_at.items()):
            if now >= at:
                self._start(index)

    def _end_hanging(self, index: int, process: SpawnProcess) -> None:
        self._log.error("worker hangs, killing it", worker=index, pid=process.pid)
        self.hangs[index] += 1
        self._hangs_at[index] += HANG_TIMEOUT
        with contextlib.suppress(OSError):
            process.kill()
