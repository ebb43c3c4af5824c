"""kaa-ext: runs reference extension services, several in one process if wanted."""

import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import uvloop
from cyclopts import App, CycloptsError, Parameter

from ext import dcx, echo, tsx
from ext.connection import DEFAULT_NATS_URL, nats_urls
from ext.logs import LogLevel, configure
from ext.runner import run
from ext.service import DEFAULT_GATEWAY_INSTANCE, Extension

SERVICES: dict[str, Callable[[Extension], None]] = {
    "dcx": dcx.register,
    "echo": echo.register,
    "tsx": tsx.register,
}

USAGE_ERROR = 2
INTERRUPTED = 130

app = App(name="kaa-ext", help="Kaa extension services.", version_flags=[])


@app.command(name="run")
def run_services(
    *services: str,
    nats: Annotated[str, Parameter(env_var="NATS_URLS")] = DEFAULT_NATS_URL,
    gateway_instance: str = DEFAULT_GATEWAY_INSTANCE,
    log_level: LogLevel = "info",
) -> None:
    """Run services until Ctrl-C: dcx (data collection), tsx (time), echo.

    Parameters
    ----------
    services
        Names of services; NAME=TYPE runs one under another instance name, as in dcx2=dcx.
    nats
        NATS server URLs, separated by commas.
    gateway_instance
        Service instance name of the gateway, for messages that no device asked for.
    log_level
        debug, info, warning or error.
    """
    try:
        extensions = _extensions(services, nats_urls(nats), gateway_instance)
    except ValueError as error:
        _fail(str(error))
    configure(log_level)
    try:
        uvloop.run(run(*extensions, on_ready=lambda: print("ready", flush=True)))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _extensions(services: tuple[str, ...], urls: list[str], gateway_instance: str) -> list[Extension]:
    """One extension for each NAME or NAME=TYPE. ValueError says what is wrong."""
    known = ", ".join(SERVICES)
    if not services:
        raise ValueError(f"no service named; known: {known}")
    extensions: dict[str, Extension] = {}
    for service in services:
        name, _, kind = service.partition("=")
        register = SERVICES.get(kind or name)
        if register is None:
            raise ValueError(f"unknown service {kind or name!r}; known: {known}")
        if name in extensions:
            raise ValueError(f"two services are named {name!r}; NAME=TYPE gives one another name")
        extensions[name] = Extension(name, nats_urls=urls, gateway_instance=gateway_instance)
        register(extensions[name])
    return list(extensions.values())


def _fail(message: str) -> NoReturn:
    print(f"kaa-ext: {message}", file=sys.stderr)
    sys.exit(USAGE_ERROR)


def main() -> None:
    """Console entry point."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(str(error))
