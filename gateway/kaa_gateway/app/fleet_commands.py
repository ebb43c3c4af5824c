"""What the commands of `kaa-gateway` about replicas and sessions do: they ask the replicas over NATS, and print."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from kaa_gateway import logs
from kaa_gateway.app.watching import EndpointWatch
from kaa_gateway.bus.connector import TlsOptions
from kaa_gateway.bus.control import Control
from kaa_gateway.bus.credentials import Credentials
from kaa_gateway.config import config_path, load
from kaa_gateway.config.sources import PATH_VARIABLE
from kaa_gateway.errors import BusError, ConfigError, GatewayError
from kaa_gateway.fleet.nats_channel import NatsChannel
from kaa_gateway.fleet.operations import Drain, ListSessions, Shed
from kaa_gateway.fleet.replicas import Replicas, excess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from kaa_gateway.config import Config
    from kaa_gateway.fleet.operations import Status

CONNECT_TIMEOUT = 10.0
"""Seconds until a command gives up connecting to NATS."""
POLL_PERIOD = 0.5
"""Seconds between looks at a replica that drains."""
PAGE = 200
"""Sessions that a replica is asked for at once."""

NO_CONFIGURATION = """\
no configuration: name the gateway's service-config.yml with --config FILE or APP_CONFIG_PATH, or NATS with --nats URLS.
Without a file, the service instance is that of SERVICE_INSTANCE_NAME, else `kpc`."""


def configuration(path: Path | None, urls: str | None) -> Config:
    """Return the configuration that names the instance and NATS: as `run` would read it, or from the environment alone.

    Raises ConfigError if there is neither a file nor the address of NATS.
    """
    environ = dict(os.environ)
    if urls is not None:
        environ["NATS_URLS"] = urls
    if path is None:
        path = config_path(environ)
        if not environ.get(PATH_VARIABLE) and not path.exists():
            if not environ.get("NATS_URLS"):
                raise ConfigError("no_configuration", NO_CONFIGURATION)
            path = None
    return load(path, environ)


def _control(config: Config) -> Control:
    settings = config.nats
    return Control(
        settings.urls,
        name=f"{config.service.instance.name} operator",
        tls=TlsOptions(
            settings.tls.ca_file,
            settings.tls.cert_file,
            settings.tls.key_file,
            handshake_first=settings.tls.handshake_first,
        ),
        credentials=Credentials(settings.credentials_file) if settings.credentials_file else None,
    )


@asynccontextmanager
async def _started(control: Control) -> AsyncIterator[Control]:
    """Connect to NATS. Raises BusError if that fails in time."""
    logs.configure("error", "console")  # on standard error: standard output has what was asked for
    control.start()
    try:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                while not control.connected:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise BusError(
                "nats_away", f"cannot connect to NATS: {control.last_error or 'no answer'}"
            ) from None
        yield control
    finally:
        await control.stop()


@asynccontextmanager
async def replicas_of(config: Config) -> AsyncIterator[Replicas]:
    """Yield the replicas of the configured instance."""
    async with _started(_control(config)) as control:
        yield Replicas(NatsChannel(control, config.service.instance.name))


async def list_replicas(config: Config, *, as_json: bool) -> int:
    """Print how each replica is."""
    async with replicas_of(config) as replicas:
        statuses = await replicas.all()
    if as_json:
        _print_json([_fields(status) for status in statuses])
    else:
        rows = [
            (each.replica, each.version, each.connections, each.sessions, each.endpoints, _state(each))
            for each in statuses
        ]
        _print_table(("REPLICA", "VERSION", "CONNECTIONS", "SESSIONS", "ENDPOINTS", "STATE"), rows)
    return _found(statuses, config)


async def drain(config: Config, names: tuple[str, ...], request: Drain, timeout: float) -> int:
    """Have replicas drain, and wait until their clients are gone. One that stops meanwhile has none."""
    async with replicas_of(config) as replicas:
        for name in names:
            await replicas.status(name)  # none drains if one is not there
        for name in names:
            print(f"{name}: {await replicas.drain(name, request)} clients to send away")
        deadline = asyncio.get_running_loop().time() + timeout
        left: dict[str, int | None] = dict.fromkeys(names, 1)
        while any(left.values()) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(POLL_PERIOD)
            left = {name: await _clients_left(replicas, name) for name in names}
    for name, clients in left.items():
        if clients is None:
            print(f"{name}: stopped")
        else:
            print(f"{name}: drained" if clients == 0 else f"{name}: {clients} clients left")
    return 1 if any(left.values()) else 0


async def _clients_left(replicas: Replicas, name: str) -> int | None:
    """Return how many clients a replica has; None if it has stopped."""
    try:
        return (await replicas.status(name)).clients
    except BusError as error:
        if error.reason != "nats_no_responders":
            raise
        return None


async def rebalance(config: Config, rate: int | None, *, permanent: bool) -> int:
    """Have replicas send away what they have above the mean."""
    async with replicas_of(config) as replicas:
        statuses = await replicas.all()
        above = excess(statuses)
        for status in statuses:
            count = above.get(status.replica, 0)
            if count:
                count = await replicas.shed(status.replica, Shed(count=count, rate=rate, permanent=permanent))
            print(f"{status.replica}: {status.clients} clients, {count} to send away")
    return _found(statuses, config)


async def list_sessions(config: Config, names: tuple[str, ...], query: ListSessions, *, as_json: bool) -> int:
    """Print the sessions of replicas, of all if none is named: `query.limit` at most."""
    found: list[dict[str, Any]] = []
    async with replicas_of(config) as replicas:
        for name in names or tuple(status.replica for status in await replicas.all()):
            slot: int | None = 0
            while slot is not None and len(found) < query.limit:
                page = await replicas.page(
                    name,
                    ListSessions(
                        slot=slot,
                        limit=min(PAGE, query.limit - len(found)),
                        protocol=query.protocol,
                        client=query.client,
                        endpoint=query.endpoint,
                    ),
                )
                found += [{"id": f"{name}/{each.pop('id')}", **each} for each in page.sessions]
                slot = page.next
    if as_json:
        _print_json(found)
    else:
        rows = [
            (
                each["id"],
                each["protocol"],
                each.get("clientId") or "-",
                each.get("peer") or "-",
                "yes" if each["online"] else "no",
                each["since"],
                ",".join(endpoint["endpointId"] for endpoint in each["endpoints"][:3]) or "-",
            )
            for each in found
        ]
        _print_table(("SESSION", "PROTOCOL", "CLIENT", "PEER", "ONLINE", "SINCE", "ENDPOINTS"), rows)
    return 0 if found else 1


async def watch(config: Config, endpoint_id: str, count: int) -> int:
    """Print the messages of an endpoint as they come, `count` of them, or until it is interrupted."""
    control = _control(config)
    lines: asyncio.Queue[str] = asyncio.Queue()
    EndpointWatch(control, endpoint_id, lines.put_nowait)
    async with _started(control):
        print(f"watching {endpoint_id}", flush=True)
        for _ in range(count) if count else itertools.count():
            print(await lines.get(), flush=True)
    return 0


async def disconnect(config: Config, session: str) -> int:
    """End the session that `sessions list` names so."""
    replica, _, key = session.rpartition("/")
    try:
        number = int(key, 16)
    except ValueError:
        number = -1
    if not replica or number < 0:
        raise GatewayError("no_session", f"{session!r} is no session; `kaa-gateway sessions list` shows them")
    async with replicas_of(config) as replicas:
        ended = await replicas.end_session(replica, number)
    print("disconnected" if ended else "this session has ended already")
    return 0 if ended else 1


def _state(status: Status) -> str:
    return "draining" if status.draining else "serving"


def _fields(status: Status) -> dict[str, Any]:
    return {
        "replica": status.replica,
        "version": status.version,
        "connections": status.connections,
        "clients": status.clients,
        "sessions": status.sessions,
        "endpoints": status.endpoints,
        "draining": status.draining,
    }


def _found(statuses: list[Status], config: Config) -> int:
    if statuses:
        return 0
    print(f"no replica of {config.service.instance.name} answers", file=sys.stderr)
    return 1


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    texts = [head, *(tuple(map(str, row)) for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    for row in texts:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
