"""`kaa-ext run`: serves reference services."""

import sys
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import Parameter, validators

from kaa_ext.cli.common import Domain, Nats, check_domain, servers
from kaa_ext.cli.exits import INTERRUPTED, fail
from kaa_ext.cli.hosting import Options, extensions_of
from kaa_ext.cli.supervisor import WORKERS_MAX, check_workers, run_several
from kaa_ext.sdk.addresses import host_and_port
from kaa_ext.sdk.errors import CannotListen
from kaa_ext.sdk.extension import DEFAULT_GATEWAY_INSTANCE
from kaa_ext.sdk.logs import LogLevel, configure
from kaa_ext.sdk.runner import run
from kaa_ext.sdk.urls import DEFAULT_NATS_URL


def run_services(
    *services: str,
    nats: Nats = DEFAULT_NATS_URL,
    settings: Annotated[Path | None, Parameter(name="--settings")] = None,
    durable: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    gateway_instance: str = DEFAULT_GATEWAY_INSTANCE,
    state_replicas: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=5))] = 1,
    jetstream_domain: Domain = None,
    workers: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=WORKERS_MAX))] = 1,
    management: str | None = None,
    tracing: Annotated[bool, Parameter(negative=())] = False,
    log_level: LogLevel = "info",
) -> None:
    """Run services until Ctrl-C.

    Parameters
    ----------
    services
        Names of services; NAME=TYPE gives the instance another name, such as dcx2=dcx. MODULE:ATTRIBUTE is an Extension
        of your own.
    settings
        YAML file with the settings of services, by instance name; docs/extensions.md lists them.
    durable
        Name of a service that takes its requests from a stream of the gateway
        (kaa.extension-instances.<name>.durable is true); may be given several times.
    gateway_instance
        Service instance name of the gateway, for pushes to devices.
    state_replicas
        Number of servers of a NATS cluster that keep each state.
    workers
        Number of processes, each with all these services. One that dies is started again.
    management
        HOST:PORT, or PORT on all addresses: serve /health/live, /health/ready and /metrics there, of all workers.
    tracing
        Continue the traces of the gateway; spans are exported as the OTEL_* variables say. Needs the extra `tracing`.
    log_level
        debug (each request), info, warning or error.
    """
    check_domain(jetstream_domain)
    options = Options(
        services,
        servers(nats),
        settings,
        durable,
        gateway_instance,
        state_replicas,
        tracing,
        log_level,
        jetstream_domain,
    )
    try:
        extensions = extensions_of(options)
        if workers > 1:
            check_workers(extensions)
        if management is not None:
            host_and_port(management)
    except ValueError as error:
        fail(str(error))
    configure(log_level)
    try:
        if workers > 1:
            timeout = max(extension.drain_timeout_s for extension in extensions)
            sys.exit(uvloop.run(run_several(options, workers, management, timeout, _say_ready)))
        uvloop.run(run(*extensions, management=management, on_ready=_say_ready))
    except CannotListen as error:
        fail(f"--management {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _say_ready() -> None:
    print("ready", flush=True)
