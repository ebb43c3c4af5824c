"""The supervisor of several worker processes of `kaa-ext run`, each with the same services.

The workers are replicas of their services: NATS shares the requests between them. The supervisor serves health and
metrics of all, and has no part in requests.
"""

import tempfile
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog
from kaa_gateway.admin.fleet import Fleet
from kaa_gateway.admin.fleet_server import FleetServer
from kaa_gateway.supervision.processes import WorkerProcesses

from kaa_ext.cli.hosting import Options
from kaa_ext.cli.worker_process import run_worker
from kaa_ext.sdk.addresses import host_and_port, listening
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.runner import until_signalled

log: Any = structlog.get_logger("ext")

WORKERS_MAX = 64
STOP_MARGIN_S = 10.0
"""Seconds beyond the longest drain of a service after which a worker is killed."""


def check_workers(extensions: Iterable[Extension]) -> None:
    """Raise ValueError if an extension cannot run in several workers."""
    for extension in extensions:
        if extension.has_fixed_replica_id:
            raise ValueError(
                f"{extension.name} has the replica ID {extension.replica_id!r}, which all workers would share: "
                "leave replica_id out, or run one worker"
            )


async def run_several(
    options: Options, count: int, management: str | None, drain_timeout_s: float, on_ready: Callable[[], None]
) -> int:
    """Run workers until SIGINT or SIGTERM, and return the exit code. `on_ready` is called when all of them serve.

    `management` is the address for health and metrics. A second signal ends the supervisor, and the workers with it.
    """
    with tempfile.TemporaryDirectory(prefix="kaa-ext-") as directory:
        sockets = {index: Path(directory) / f"worker-{index}.sock" for index in range(count)}

        def arguments(index: int, connection: Connection) -> tuple[object, ...]:
            return options, index, sockets[index], connection

        workers = WorkerProcesses(count, run_worker, arguments, name="kaa-ext", log=log, on_ready=on_ready)
        server = FleetServer(Fleet(sockets), workers, program="kaa_ext")

        async def start() -> None:
            if management is not None:
                address = host_and_port(management)
                with listening(address):
                    await server.start(*address)
            workers.start()

        async def stop() -> None:
            await workers.stop(drain_timeout_s + STOP_MARGIN_S)
            await server.stop()

        await until_signalled(start, stop)
        return workers.exit_code
