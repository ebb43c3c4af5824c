"""`kaa-gateway run`: one worker in this process, or a supervisor of several worker processes."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from kaa_gateway.app.plugins import load_checked
from kaa_gateway.app.reload import ReloadCollector, Reloader
from kaa_gateway.app.serving import serve
from kaa_gateway.app.supervisor import Supervisor
from kaa_gateway.app.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kaa_gateway.config import Config


def run(
    config: Config,
    path: Path,
    environ: Mapping[str, str],
    shape: Callable[[Config], Config] = lambda config: config,
) -> int:
    """Serve until a signal, and return the exit code. Raises GatewayError if the gateway cannot start.

    `path` and `environ` are the sources of `config`, which is read again when they change.
    `shape` makes of what is read the configuration that is used.
    """
    several = config.workers > 1
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(
            (_run_several if several else _run_alone)(
                shape(config), path, lambda: shape(load_checked(path, environ))
            )
        )


async def _run_alone(config: Config, path: Path, load: Callable[[], Config]) -> int:
    worker = Worker(config)
    reloader = Reloader(path, load, config, worker.reconfigure)
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


async def _run_several(config: Config, path: Path, load: Callable[[], Config]) -> int:
    with tempfile.TemporaryDirectory(prefix="kaa-gateway-") as directory:
        supervisor = Supervisor(config, Path(directory), path, load)
        await serve(supervisor.start, supervisor.stop, lambda: supervisor.reloader.request("SIGHUP"))
        return supervisor.exit_code
