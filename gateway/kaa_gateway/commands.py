"""The commands of `kaa-gateway`.

A command imports what it needs when it runs: importing all takes most of a second.
"""

from __future__ import annotations

import asyncio
import os
import sys
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter, validators

from kaa_gateway import __version__, stdio
from kaa_gateway.completion import add_completion
from kaa_gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kaa_gateway.config import Config

app = App(
    name="kaa-gateway",
    help="Device gateway for the Kaa IoT platform: MQTT, CoAP, HTTP and UDP devices on one side, 4/ESP on the other.",
    version=__version__,
)


add_completion(app)


@app.command
def run(
    *,
    config: Annotated[
        Path | None, Parameter(help="The service-config.yml, instead of what APP_CONFIG_PATH names.")
    ] = None,
    nats: Annotated[
        str | None, Parameter(help="NATS server URLs, separated by commas, instead of NATS_URLS.")
    ] = None,
) -> int:
    """Serve devices, in a cluster.

    The configuration is the file in APP_CONFIG_PATH (default /srv/kpc/service-config.yml), overridden by
    environment variables; NATS servers are in NATS_URLS. SIGTERM drains, SIGHUP reads the
    configuration again. See docs/configuration.md.
    """
    return _serve(config, nats)


@app.command(name="bridge")
def bridge_command(
    *,
    config: Annotated[
        Path | None, Parameter(help="The service-config.yml, instead of what APP_CONFIG_PATH names.")
    ] = None,
    nats: Annotated[
        str | None, Parameter(help="NATS server URLs, separated by commas, instead of NATS_URLS.")
    ] = None,
) -> int:
    """Take over devices that are on an MQTT broker, and listen for no others.

    The configuration is that of `run`; `kaa.kpc.bridge` names the broker. Several bridges share the load. See
    docs/bridge.md.
    """
    from kaa_gateway.app.bridge import bridge_only

    return _serve(config, nats, bridge_only)


def _serve(
    config: Path | None, nats: str | None, shape: Callable[[Config], Config] = lambda config: config
) -> int:
    import structlog

    from kaa_gateway import logs
    from kaa_gateway.app import running
    from kaa_gateway.config import config_path, load
    from kaa_gateway.files import wait_if_fresh

    log = structlog.get_logger("gateway")
    environ = dict(os.environ)
    if nats is not None:
        environ["NATS_URLS"] = nats
    path = config if config is not None else config_path(environ)
    wait_if_fresh(path)
    loaded = load(path, environ)
    logs.configure(loaded.log.level, loaded.log.format)
    for warning in loaded.warnings:
        log.warning("configuration", warning=warning)
    if loaded.identity.provider == "open":
        log.warning(
            "identity provider is `open`: any client can use any endpoint",
            key="kaa.kpc.identity.provider",
        )
    return running.run(loaded, path, environ, shape)


@app.command(name="dev")
def dev_command(
    *,
    config: Annotated[
        Path | None, Parameter(help="service-config.yml to use instead of the demo application's.")
    ] = None,
    nats_port: Annotated[
        int,
        Parameter(
            help="Port of the nats-server that is started.", validator=validators.Number(gte=1, lte=65535)
        ),
    ] = 4222,
    rest_port: Annotated[
        int,
        Parameter(
            help="Port of the REST API and of the demo page.", validator=validators.Number(gte=1, lte=65535)
        ),
    ] = 8009,
    data_dir: Annotated[
        Path | None, Parameter(help="Where JetStream keeps its data; default: a temporary directory.")
    ] = None,
    allow: Annotated[
        tuple[str, ...],
        Parameter(
            help="Extension instance that all applications may use, such as your own; may be given several times.",
            negative=(),
        ),
    ] = (),
    auth: Annotated[
        bool, Parameter(help="Tokens and clients are those of the reference provider `auth`.", negative=())
    ] = False,
) -> None:
    """Start a whole small platform here: nats-server, gateway, the reference extensions and their REST API.

    Prints addresses and example commands, then `ready`. Ctrl-C stops everything. Identity is `open` unless the
    configuration or --auth says otherwise. A change of the configuration file is applied while it runs. Needs the
    `dev` extra, which brings nats-server and what the REST API needs.
    """
    from kaa_gateway import logs
    from kaa_gateway.app import dev

    # The platform goes on when nobody reads what it prints.
    stdio.protect(stdout=True)
    logs.configure("info", "console")
    dev.run(config, nats_port, data_dir, rest_port=rest_port, allow=allow, auth=auth)


@app.command
def check_config(file: Path, /, *, kpc: Annotated[bool, Parameter(name="--kpc", negative=())] = False) -> int:
    """Check a configuration file: `ok`, or each problem with its line, key and what was expected.

    Parameters
    ----------
    file
        A service-config.yml. Environment variables that override it are checked as well, and so are the
        certificates and keys of listeners that encrypt.
    kpc
        Say what would change for a configuration of KPC. FILE is its service-config.yml, or what
        `kubectl get configmap,deployment NAME -o yaml` prints; this machine's environment is not looked at.
    """
    from kaa_gateway.app import bridge, encryption, plugins
    from kaa_gateway.config import check, dry_run, load

    if kpc:
        found = dry_run(file)
        print("\n".join(found.lines()))
        return 1 if found.errors else 0
    problems = check(file, os.environ)
    for problem in problems:
        print(problem)
    if any(problem.severity == "error" for problem in problems):
        return 1
    config = load(file, os.environ)
    unusable = [
        *encryption.problems(config.transports),
        *plugins.problems(config.transports),
        *bridge.problems(config.bridge),
    ]
    if unusable:
        print("\n".join(unusable))
        return 1
    print("ok")
    return 0


protocol = App(name="protocol", help="Write and try device protocols of your own. See docs/protocols.md.")
app.command(protocol)


@protocol.command
def new(name: str, /, *, directory: Path | None = None) -> None:
    """Write a new protocol: its class, tests, README, and a project that installs it.

    Parameters
    ----------
    name
        Name of the protocol.
    directory
        Directory to write to (default: a new one of that name).
    """
    from kaa_gateway.plugins import scaffold

    try:
        written = scaffold.write(name, directory or Path(name))
    except ValueError as error:
        raise GatewayError("scaffold", str(error)) from None
    except OSError as error:
        raise GatewayError("scaffold", f"{error.filename}: {error.strerror}") from None
    for path in written:
        print(path)


@protocol.command(name="fuzz")
def fuzz_protocol(
    protocol_class: Annotated[str, Parameter(help="module:Class, or the name of an entry point.")],
    /,
    *,
    seconds: Annotated[float, Parameter(help="How long.", validator=validators.Number(gt=0))] = 10,
    seed: Annotated[int, Parameter(help="A run with the same seed plays the same devices.")] = 0,
) -> int:
    """Play hostile devices against a protocol. Exit code 1: it has failed; the input is printed."""
    from kaa_gateway.plugins.fuzzing import FuzzFailure, fuzz
    from kaa_gateway.plugins.loading import load_protocol

    try:
        runs = fuzz(load_protocol("protocol", protocol_class), seconds=seconds, seed=seed)
    except FuzzFailure as failure:
        print(failure)
        return 1
    print(f"{runs} devices played, no failure")
    return 0


@app.command
def hash_password() -> int:
    """Read a password and print its hash for the file of the identity provider `static`.

    The password is the first line of standard input. At a terminal, the command asks for it.
    """
    from kaa_gateway.identity.passwords import hashed

    password = getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise GatewayError("no_password", "no password given")
    print(hashed(password.encode()))
    return 0


ConfigFile = Annotated[
    Path | None,
    Parameter(
        name="--config",
        help="service-config.yml with the instance's name and NATS, instead of APP_CONFIG_PATH.",
    ),
]
NatsUrls = Annotated[str | None, Parameter(name="--nats", help="NATS server URLs, instead of NATS_URLS.")]
Rate = Annotated[
    int | None,
    Parameter(
        help="Clients a second; 0 is all at once. Default: kaa.kpc.limits.redirects-per-second.",
        validator=validators.Number(gte=0),
    ),
]
Permanent = Annotated[
    bool, Parameter(help="Tell clients of MQTT 5 to stay at the other server (0x9D).", negative=())
]
AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON.", negative=())]


@app.command
def replicas(*, config: ConfigFile = None, nats: NatsUrls = None, as_json: AsJson = False) -> int:
    """List the replicas of the gateway instance that answer over NATS, and their connections."""
    from kaa_gateway.app import fleet_commands as fleet

    return asyncio.run(fleet.list_replicas(fleet.configuration(config, nats), as_json=as_json))


@app.command
def drain(
    *names: Annotated[str, Parameter(name="REPLICA", help="Replicas, as `kaa-gateway replicas` shows them.")],
    rate: Rate = None,
    permanent: Permanent = False,
    timeout: Annotated[
        float,
        Parameter(help="Seconds to wait until the clients are gone.", validator=validators.Number(gte=0)),
    ] = 300,
    config: ConfigFile = None,
    nats: NatsUrls = None,
) -> int:
    """Have replicas accept no more connections, and send their MQTT clients away at a rate.

    A replica that drains is not ready, and goes on until SIGTERM ends it. Exit code 1: clients were left.
    """
    from kaa_gateway.app import fleet_commands as fleet
    from kaa_gateway.fleet.operations import Drain

    if not names:
        raise GatewayError("no_replica", "name the replicas to drain; `kaa-gateway replicas` lists them")
    request = Drain(rate=rate, permanent=permanent)
    return asyncio.run(fleet.drain(fleet.configuration(config, nats), names, request, timeout))


@app.command
def rebalance(
    *, rate: Rate = None, permanent: Permanent = False, config: ConfigFile = None, nats: NatsUrls = None
) -> int:
    """Have replicas send away the MQTT clients that they have above the mean of all replicas."""
    from kaa_gateway.app import fleet_commands as fleet

    return asyncio.run(fleet.rebalance(fleet.configuration(config, nats), rate, permanent=permanent))


sessions = App(name="sessions", help="List, find and end sessions of all replicas, over NATS.")
app.command(sessions)

Replica = Annotated[
    tuple[str, ...], Parameter(name="--replica", help="Only of these replicas.", negative_iterable=())
]
Limit = Annotated[int, Parameter(help="Sessions at most.", validator=validators.Number(gte=1, lte=100_000))]


@sessions.command(name="list")
def list_sessions(
    *,
    replica: Replica = (),
    protocol: Annotated[
        str | None,
        Parameter(help="Only of this one: mqtt, mqtt-sn, http, coap, udp, bridge or that of a plug-in."),
    ] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
    config: ConfigFile = None,
    nats: NatsUrls = None,
) -> int:
    """List sessions. Exit code 1: there is none."""
    from kaa_gateway.app import fleet_commands as fleet
    from kaa_gateway.fleet.operations import ListSessions

    query = ListSessions(limit=limit, protocol=protocol)
    return asyncio.run(
        fleet.list_sessions(fleet.configuration(config, nats), replica, query, as_json=as_json)
    )


@sessions.command
def find(
    *,
    endpoint: Annotated[str | None, Parameter(help="An endpoint ID.")] = None,
    client: Annotated[str | None, Parameter(help="An MQTT client identifier.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
    config: ConfigFile = None,
    nats: NatsUrls = None,
) -> int:
    """Find the sessions of an endpoint or a client. Exit code 1: there is none."""
    from kaa_gateway.app import fleet_commands as fleet
    from kaa_gateway.fleet.operations import ListSessions

    if endpoint is None and client is None:
        raise GatewayError("no_query", "give --endpoint or --client")
    query = ListSessions(limit=limit, endpoint=endpoint, client=client)
    return asyncio.run(fleet.list_sessions(fleet.configuration(config, nats), (), query, as_json=as_json))


@sessions.command
def watch(
    endpoint: Annotated[str, Parameter(help="An endpoint ID.")],
    /,
    *,
    count: Annotated[
        int, Parameter(help="End after so many messages; 0: Ctrl-C.", validator=validators.Number(gte=0))
    ] = 0,
    config: ConfigFile = None,
    nats: NatsUrls = None,
) -> int:
    """Print the messages of an endpoint as they pass through NATS: `>` from it, `<` to it.

    NATS sends the messages of all endpoints here, so this is for small loads. A watcher that is too slow misses some.
    Messages that the gateway itself refuses, and its answers to them, do not pass through NATS.
    """
    from kaa_gateway.app import fleet_commands as fleet

    return asyncio.run(fleet.watch(fleet.configuration(config, nats), endpoint, count))


@sessions.command
def disconnect(
    session: Annotated[str, Parameter(help="A session, as `sessions list` shows it: REPLICA/KEY.")],
    /,
    *,
    config: ConfigFile = None,
    nats: NatsUrls = None,
) -> int:
    """End a session. Its device may connect again at once."""
    from kaa_gateway.app import fleet_commands as fleet

    return asyncio.run(fleet.disconnect(fleet.configuration(config, nats), session))


@app.command
def version() -> None:
    """Print the version."""
    print(__version__)
