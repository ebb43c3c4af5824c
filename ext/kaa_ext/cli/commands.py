"""`kaa-ext run`: serves reference services."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import uvloop
from cyclopts import Parameter, validators
from prometheus_client import start_http_server

from kaa_ext.cli.common import Nats, servers
from kaa_ext.cli.exits import INTERRUPTED, fail
from kaa_ext.cli.settings import SettingsError, convert, read
from kaa_ext.sdk.extension import DEFAULT_GATEWAY_INSTANCE, Extension
from kaa_ext.sdk.logs import LogLevel, configure
from kaa_ext.sdk.middleware import Metrics, log_error, log_requests
from kaa_ext.sdk.runner import run
from kaa_ext.sdk.urls import DEFAULT_NATS_URL
from kaa_ext.services import auth, cex, cmx, dcx, echo, ecr, epmx, epts, tsx
from kaa_ext.services.local_receivers import LocalReceivers


class Service(NamedTuple):
    """A reference service: its `register` function, and the type of its settings if it has any.

    One that `hands_over` takes the receivers of data samples in this process as well.
    """

    register: Callable[..., None]
    settings: type[msgspec.Struct] | None = None
    hands_over: bool = False


SERVICES: dict[str, Service] = {
    "auth": Service(auth.register),
    "cex": Service(cex.register, cex.Settings),
    "cmx": Service(cmx.register, cmx.Settings),
    "dcx": Service(dcx.register, dcx.Settings, hands_over=True),
    "echo": Service(echo.register),
    "ecr": Service(ecr.register),
    "epmx": Service(epmx.register, epmx.Settings),
    "epts": Service(epts.register, epts.Settings, hands_over=True),
    "tsx": Service(tsx.register),
}


def run_services(
    *services: str,
    nats: Nats = DEFAULT_NATS_URL,
    settings: Annotated[Path | None, Parameter(name="--settings")] = None,
    durable: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    gateway_instance: str = DEFAULT_GATEWAY_INSTANCE,
    state_replicas: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=5))] = 1,
    metrics_port: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=65535))] = None,
    tracing: Annotated[bool, Parameter(negative=())] = False,
    log_level: LogLevel = "info",
) -> None:
    """Run services until Ctrl-C.

    Parameters
    ----------
    services
        Names of services; NAME=TYPE gives the instance another name, such as dcx2=dcx.
    settings
        YAML file with the settings of services, by instance name; docs/extensions.md lists them.
    durable
        Name of a service that takes its requests from a stream of the gateway
        (kaa.extension-instances.<name>.durable is true); may be given several times.
    gateway_instance
        Service instance name of the gateway, for pushes to devices.
    state_replicas
        Number of servers of a NATS cluster that keep each state.
    metrics_port
        Serve Prometheus metrics on this port.
    tracing
        Continue the traces of the gateway; spans are exported as the OTEL_* variables say. Needs the extra `tracing`.
    log_level
        debug (each request), info, warning or error.
    """
    urls = servers(nats)
    try:
        sections = read(settings) if settings is not None else {}
        extensions = {
            name: Extension(
                name,
                nats_urls=urls,
                gateway_instance=gateway_instance,
                durable=name in durable,
                state_replicas=state_replicas,
            )
            for name in _kinds(services)
        }
        for name in durable:
            if name not in extensions:
                raise ValueError(f"--durable {name}: no service of this name is run")
        local = LocalReceivers(name for name, kind in _kinds(services).items() if kind == "dcx")
        for name, kind in _kinds(services).items():
            _register(extensions[name], kind, settings, sections, local)
        unused = sections.keys() - extensions.keys()
        if unused:
            raise SettingsError(f"{settings}: {min(unused)}: no service of this name is run")
    except ValueError as error:
        fail(str(error))
    configure(log_level)
    metrics = Metrics()
    if tracing:
        _trace(*extensions.values())
    for extension in extensions.values():
        metrics.watch(extension)
        if log_level == "debug":
            extension.middleware(log_requests)
        else:
            # Middleware would put a task around every request.
            extension.on_error(log_error)
    if metrics_port is not None:
        try:
            start_http_server(metrics_port, registry=metrics.registry)
        except OSError as error:
            fail(f"--metrics-port {metrics_port}: {error.strerror}")
    try:
        uvloop.run(run(*extensions.values(), on_ready=lambda: print("ready", flush=True)))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _kinds(services: tuple[str, ...]) -> dict[str, str]:
    """Return the type of each service by its instance name. Raise ValueError for a wrong list."""
    known = ", ".join(SERVICES)
    if not services:
        raise ValueError(f"no service named; known: {known}")
    kinds: dict[str, str] = {}
    for service in services:
        name, _, kind = service.partition("=")
        if (kind or name) not in SERVICES:
            raise ValueError(f"unknown service {kind or name!r}; known: {known}")
        if name in kinds:
            raise ValueError(f"two services are named {name!r}; NAME=TYPE gives one another name")
        kinds[name] = kind or name
    return kinds


def _register(
    extension: Extension, kind: str, path: Path | None, sections: dict[str, Any], local: LocalReceivers
) -> None:
    """Register the handlers of a service. Raise SettingsError if its settings are wrong."""
    service = SERVICES[kind]
    options = {"local": local} if service.hands_over else {}
    if path is None or extension.name not in sections:
        service.register(extension, **options)
    elif service.settings is None:
        raise SettingsError(f"{path}: {extension.name}: {kind} has no settings")
    else:
        settings = convert(path, extension.name, sections[extension.name], service.settings)
        service.register(extension, settings, **options)


def _trace(*extensions: Extension) -> None:
    """Trace the requests of extensions. Exit with an error without the extra `tracing`."""
    try:
        from kaa_ext.sdk.tracing import Tracing
    except ModuleNotFoundError:
        fail("--tracing needs the extra `tracing`: pip install 'kaa-gateway[tracing]'")
    traces = Tracing()
    for extension in extensions:
        traces.watch(extension)
