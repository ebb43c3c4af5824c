"""One of several worker processes of `kaa-ext run`, as its supervisor starts it."""

import asyncio
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog
import uvloop
from kaa_gateway.supervision.reports import EXIT_CANNOT_START, Report, Reports

from kaa_ext.cli.hosting import Options, extensions_of
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.logs import configure
from kaa_ext.sdk.runner import run

log: Any = structlog.get_logger("ext")


def run_worker(options: Options, index: int, socket: Path, supervisor: Connection) -> None:
    """Run the services until SIGTERM, or until the supervisor is gone. Health and metrics are on a Unix socket."""
    configure(options.log_level)
    # A terminal sends Ctrl-C and its own end to all processes; the supervisor handles them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        extensions = extensions_of(options)
    except Exception as error:  # noqa: BLE001 - a service of the user's own may raise anything
        log.error("worker cannot start", worker=index, error=str(error))
        raise SystemExit(EXIT_CANNOT_START) from None
    uvloop.run(_serve(extensions, socket, supervisor))


async def _serve(extensions: list[Extension], socket: Path, supervisor: Connection) -> None:
    loop = asyncio.get_running_loop()
    reports = Reports(supervisor)
    repeating = loop.create_task(reports.repeat())
    orphaned = False

    def receive() -> None:
        nonlocal orphaned
        with suppress(EOFError, OSError):
            supervisor.recv()
            return
        # The supervisor has ended or was killed: nobody else would stop this process.
        orphaned = True
        loop.remove_reader(supervisor.fileno())
        log.error("the supervisor has gone; stopping")
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(supervisor.fileno(), receive)
    await run(
        *extensions,
        management=socket,
        on_ready=lambda: reports.send(Report.SERVING),
        signals=(signal.SIGTERM,),
    )
    repeating.cancel()
    if orphaned:
        # Nobody else would remove the sockets; the last worker finds their directory empty.
        socket.unlink(missing_ok=True)
        with suppress(OSError):
            socket.parent.rmdir()
