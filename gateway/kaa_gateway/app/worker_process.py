"""One of several worker processes, as its supervisor starts it.

Over its connection a worker gets each new configuration, and sends reports of what the supervisor must know.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import signal
from typing import TYPE_CHECKING

import structlog
import uvloop

from kaa_gateway import logs
from kaa_gateway.app.serving import serve
from kaa_gateway.app.worker import Worker
from kaa_gateway.errors import GatewayError
from kaa_gateway.supervision.reports import EXIT_CANNOT_START, Report, Reports

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

    from kaa_gateway.app.shared_sockets import BoundSockets
    from kaa_gateway.config import Config

log = structlog.get_logger("gateway")


class Announcement(enum.Enum):
    """What workers of the gateway report beside `Report`."""

    CONFIGURATION = enum.auto()
    """The cluster has announced another configuration."""


ANNOUNCED = Announcement.CONFIGURATION


def run_worker(
    config: Config, index: int, admin_socket: Path, supervisor: Connection, bound: BoundSockets
) -> None:
    """Run a worker until SIGTERM, or until the supervisor is gone. `bound` are its UDP sockets."""
    logs.configure(config.log.level, config.log.format)
    # A terminal sends Ctrl-C and its own end to all processes; the supervisor handles them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run_in_process(config, index, admin_socket, supervisor, bound))
    except GatewayError as error:
        log.error("worker cannot start", worker=index, error=error.detail or str(error))
        raise SystemExit(EXIT_CANNOT_START) from None


async def _run_in_process(
    config: Config, index: int, admin_socket: Path, supervisor: Connection, bound: BoundSockets
) -> None:
    loop = asyncio.get_running_loop()
    reports = Reports(supervisor)
    repeating = loop.create_task(reports.repeat())
    worker = Worker(config, index, admin_socket, bound)
    worker.subscribe_announcements(lambda: reports.send(ANNOUNCED))
    configuring: asyncio.Task[None] | None = None
    orphaned = False

    def receive() -> None:
        nonlocal configuring, orphaned
        try:
            new: Config = supervisor.recv()
        except (EOFError, OSError):
            # The supervisor has ended or was killed: nobody else would stop this process.
            orphaned = True
            loop.remove_reader(supervisor.fileno())
            log.error("the supervisor has gone; stopping")
            signal.raise_signal(signal.SIGTERM)
            return
        configuring = loop.create_task(worker.reconfigure(new))

    async def start() -> None:
        await worker.start()
        reports.send(Report.SERVING)

    loop.add_reader(supervisor.fileno(), receive)
    await serve(start, worker.stop)
    repeating.cancel()
    if orphaned:
        # Nobody else would remove the sockets; the last worker finds their directory empty.
        admin_socket.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            admin_socket.parent.rmdir()
