"""The services that `kaa-ext run` runs, made from its options: once in a process alone, once in each worker."""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kaa_ext.cli.exits import fail
from kaa_ext.cli.settings import SettingsError, convert, read
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.logs import LogLevel
from kaa_ext.sdk.middleware import log_error, log_requests
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


class Options(NamedTuple):
    """The options of `kaa-ext run` from which services are made."""

    services: tuple[str, ...]
    nats_urls: list[str]
    settings: Path | None
    durable: tuple[str, ...]
    gateway_instance: str
    state_replicas: int
    tracing: bool
    log_level: LogLevel
    jetstream_domain: str | None = None


def extensions_of(options: Options) -> list[Extension]:
    """Return the extensions that the options name. Raise ValueError if an option is wrong."""
    sections = read(options.settings) if options.settings is not None else {}
    kinds = _kinds(options.services)
    extensions = {
        name: _imported(kind, options)
        if ":" in kind
        else Extension(
            name,
            nats_urls=options.nats_urls,
            gateway_instance=options.gateway_instance,
            durable=name in options.durable,
            state_replicas=options.state_replicas,
            jetstream_domain=options.jetstream_domain,
        )
        for name, kind in kinds.items()
    }
    for name in options.durable:
        if kinds.get(name, ":").count(":"):
            raise ValueError(f"--durable {name}: no service of this name is run")
    local = LocalReceivers(name for name, kind in kinds.items() if kind == "dcx")
    for name, kind in kinds.items():
        if ":" not in kind:
            _register(extensions[name], kind, options.settings, sections, local)
    unused = sections.keys() - {name for name, kind in kinds.items() if ":" not in kind}
    if unused:
        raise SettingsError(f"{options.settings}: {min(unused)}: no service of this name is run")
    made = list(extensions.values())
    names = [extension.name for extension in made]
    if len(set(names)) != len(names):
        raise ValueError(f"two services are named {max(names, key=names.count)!r}")
    if options.tracing:
        _trace(*made)
    for extension in made:
        if options.log_level == "debug":
            extension.middleware(log_requests)
        else:
            # Middleware would put a task around every request.
            extension.on_error(log_error)
    return made


def _imported(place: str, options: Options) -> Extension:
    """Return the Extension at MODULE:ATTRIBUTE. Raise ValueError if there is none."""
    module, _, attribute = place.partition(":")
    os.environ["NATS_URLS"] = ",".join(options.nats_urls)
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{place}: {error}") from error
    if not isinstance(found, Extension):
        raise ValueError(f"{place} is {type(found).__name__}, not an Extension")
    return found


def _kinds(services: tuple[str, ...]) -> dict[str, str]:
    """Return the type of each service by its instance name. Raise ValueError for a wrong list."""
    known = f"{', '.join(SERVICES)}, MODULE:ATTRIBUTE"
    if not services:
        raise ValueError(f"no service named; known: {known}")
    kinds: dict[str, str] = {}
    for service in services:
        name, _, kind = service.partition("=")
        if ":" in service:
            name = kind = service
        elif (kind or name) not in SERVICES:
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
        fail(
            "--tracing needs the extra `tracing`: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        )
    traces = Tracing()
    for extension in extensions:
        traces.watch(extension)
