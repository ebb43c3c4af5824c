"""One of several worker processes, as its supervisor starts it.

Over its connection a worker gets each new configuration, and sends None when the cluster announces one.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import structlog
import uvloop

from kaa_gateway import logs
from kaa_gateway.app.serving import serve
from kaa_gateway.app.worker import Worker
from kaa_gateway.errors import GatewayError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

    from kaa_gateway.config import Config

log = structlog.get_logger("gateway")

EXIT_CANNOT_START = 2
"""Exit code of a worker that cannot start, and would not by trying again."""


def run_worker(config: Config, index: int, admin_socket: Path, supervisor: Connection) -> None:
    """Run a worker until SIGTERM, or until the supervisor is gone."""
    logs.configure(config.log.level, config.log.format)
    # A terminal sends Ctrl-C and its own end to all processes; the supervisor handles them.
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

    loop.add_reader(supervisor.fileno(), receive)
    await serve(worker.start, worker.stop)
    if orphaned:
        # Nobody else would remove the sockets; the last worker finds their directory empty.
        admin_socket.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            admin_socket.parent.rmdir()
