"""Measures the cost of an extension service per request of a device, beside services that do the same without the SDK.

The load generator sends pipelined requests through the gateway. The figure is the CPU of the extension's process. The
details have the CPU of nats-server.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import nats

from kaa_bench.compare.extensions import ExtensionServer, FastStreamExtension, KaaExt, NatsPyExtension
from kaa_bench.compare.figures import Figure, Probe, Scale, Subject
from kaa_bench.compare.instruments import LoadGenerator
from kaa_bench.compare.servers import Servers
from kaa_bench.connecting import LoadSpec
from kaa_bench.errors import BenchError
from kaa_bench.packets import EXTENSION, PAYLOAD, REQUEST_ID, Profile
from kaa_bench.peers.servers import NatsMqtt
from kaa_bench.processes import Gateway, NatsServer, Server

CONNECTIONS = 32
WINDOW = 64
"""Requests of a connection that wait for their answer."""
WARM_UP_S = 0.5
STREAM_BYTES = 1 << 30
MICROSECONDS = 1e6


@dataclass(frozen=True)
class ExtensionRow:
    """A row: what devices request, and the services that answer, the one on the SDK first.

    With `durable`, the gateway stores the requests in a stream and the service consumes that.
    """

    name: str
    title: str
    services: Sequence[Callable[[NatsServer], ExtensionServer]]
    path: str = "json"
    payload: bytes = PAYLOAD
    durable: bool = False
    installed: Callable[[], bool] = field(default=lambda: True)

    @property
    def load(self) -> LoadSpec:
        """Return the load of devices."""
        profile = Profile(path=self.path, payload=self.payload)
        return LoadSpec("mqtt", CONNECTIONS, window=WINDOW, answered=True, profile=profile)


def _measure(
    row: ExtensionRow, service: ExtensionServer, gateway: Gateway, server: NatsServer, seconds: float
) -> Figure:
    """Return the CPU microseconds of the extension's process per request."""
    with service, LoadGenerator(row.load, gateway.address_of("mqtt")) as generator:
        generator.run(seconds=WARM_UP_S)
        extension_cpu, nats_cpu = service.cpu_seconds(), server.cpu_seconds()
        result = generator.run(seconds=seconds)
        extension_cpu, nats_cpu = service.cpu_seconds() - extension_cpu, server.cpu_seconds() - nats_cpu
    if not result.sent:
        raise BenchError("the load generator sent nothing")
    remarks = [f"{count} x {kind}" for kind, count in result.errors.items()]
    if result.acknowledged < result.sent:
        remarks.append(f"{result.sent - result.acknowledged} of {result.sent} were not answered")
    return Figure(
        extension_cpu / result.sent * MICROSECONDS,
        {"nats_us": nats_cpu / result.sent * MICROSECONDS, "rate": result.sent / result.seconds},
        tuple(remarks),
    )


def _stored_by_the_platform(servers: Servers, seconds: float) -> Figure:
    """Return the CPU microseconds of gateway, services and nats-server from a device to a stored sample."""
    gateway, server = servers.extension_gateway, servers.extension_nats
    row = next(row for row in ROWS if row.name == "ext-dcx")
    with row.services[0](server) as service, LoadGenerator(row.load, gateway.address_of("mqtt")) as generator:
        return _sum_of(generator, seconds, {"gateway": gateway, "extension": service, "nats": server})


def _stored_by_nats(peer: NatsMqtt, seconds: float) -> Figure:
    """Return the CPU microseconds of nats-server from a device to a stream on the topic."""
    spec = LoadSpec("mqtt", CONNECTIONS, qos=1, window=WINDOW)
    asyncio.run(_make_stream(peer))
    with LoadGenerator(spec, peer.address) as generator:
        return _sum_of(generator, seconds, {"nats": peer})


async def _make_stream(peer: NatsMqtt) -> None:
    host, port = peer.nats_address
    client = await nats.connect(f"nats://{host}:{port}")
    # MQTT topics are subjects whose levels are separated by dots.
    await client.jetstream().add_stream(name="samples", subjects=["kp1.>"], max_bytes=STREAM_BYTES)
    await client.close()


def _sum_of(generator: LoadGenerator, seconds: float, servers: dict[str, Server]) -> Figure:
    """Run the generator, and return the CPU microseconds of servers per acknowledged message."""
    generator.run(seconds=WARM_UP_S)
    before = {name: server.cpu_seconds() for name, server in servers.items()}
    result = generator.run(seconds=seconds)
    if not result.acknowledged:
        raise BenchError("nothing was acknowledged")
    used = {name: server.cpu_seconds() - before[name] for name, server in servers.items()}
    details = {f"{name}_us": each / result.acknowledged * MICROSECONDS for name, each in used.items()}
    remarks = tuple(f"{count} x {kind}" for kind, count in result.errors.items())
    return Figure(sum(details.values()), {**details, "rate": result.acknowledged / result.seconds}, remarks)


def _stored_subjects(servers: Servers, scale: Scale) -> list[Subject]:
    subjects = [Subject("gateway + kaa-ext", partial(_stored_by_the_platform, servers, scale.seconds))]
    peer = servers.peer(NatsMqtt)
    if peer is not None:
        subjects.append(Subject(f"{peer.title} + stream", partial(_stored_by_nats, peer, scale.seconds)))
    return subjects


def _subjects(row: ExtensionRow, servers: Servers, scale: Scale) -> list[Subject]:
    if row.durable:
        gateway, server = servers.durable_gateway, servers.storing_nats
    else:
        gateway, server = servers.extension_gateway, servers.extension_nats
    services = [service(server) for service in row.services]
    return [
        Subject(service.title, partial(_measure, row, service, gateway, server, scale.seconds))
        for service in services
        if service.is_installed()
    ]


def _service(kind: str, *beside: str, **options: Any) -> Callable[[NatsServer], ExtensionServer]:
    """Return what starts a reference service in place of the bench's extension instance."""

    def start(server: NatsServer) -> ExtensionServer:
        return KaaExt(server, kind, *beside, **options)

    return start


def _beside(kind: str, **options: Any) -> tuple[Callable[[NatsServer], ExtensionServer], ...]:
    """Return what starts the services that do the same without the SDK."""
    return partial(NatsPyExtension, kind=kind, **options), partial(FastStreamExtension, kind=kind, **options)


ROWS = (
    ExtensionRow(
        "ext-echo",
        "extension: echo",
        (_service("echo"), *_beside("echo")),
    ),
    ExtensionRow("ext-tsx", "extension: the time (tsx)", (_service("tsx"),), path="time", payload=b""),
    ExtensionRow(
        "ext-dcx",
        "extension: a sample stored (dcx, epts)",
        (_service("dcx", "epts", settings={EXTENSION: {"must-confirm": ["epts"]}}), *_beside("dcx")),
    ),
    ExtensionRow(
        "ext-dcx-series",
        "extension: a sample stored and its time series transmitted (dcx, epts)",
        (
            _service(
                "dcx",
                "epts",
                settings={EXTENSION: {"must-confirm": ["epts"]}, "epts": {"auto-extraction": True}},
            ),
        ),
    ),
    ExtensionRow(
        "ext-epmx-get",
        "extension: metadata read (epmx)",
        (_service("epmx"), *_beside("epmx-get")),
        path="get",
        payload=b"",
    ),
    ExtensionRow(
        "ext-epmx-update",
        "extension: metadata changed (epmx)",
        (_service("epmx"), *_beside("epmx-update")),
        path="update/keys",
        payload=b'{"firmware":"1.2.%s","location":"hall"}' % REQUEST_ID.encode(),
    ),
    ExtensionRow(
        "ext-epmx-remote-get",
        "extension: metadata read from another repository (epmx, epr)",
        (_service("epmx", "epr=epmx", settings={EXTENSION: {"repository": "epr"}}),),
        path="get",
        payload=b"",
    ),
    ExtensionRow(
        "ext-epmx-remote-update",
        "extension: metadata changed in another repository (epmx, epr)",
        (_service("epmx", "epr=epmx", settings={EXTENSION: {"repository": "epr"}}),),
        path="update/keys",
        payload=b'{"firmware":"1.2.%s","location":"hall"}' % REQUEST_ID.encode(),
    ),
    ExtensionRow(
        "ext-cmx",
        "extension: an unchanged configuration (cmx, ecr)",
        (_service("cmx", "ecr"), *_beside("cmx")),
        path="config/json",
        payload=b'{"configId":""}',
    ),
    ExtensionRow(
        "ext-durable",
        "extension: echo from a stream",
        (_service("echo", durable=True), *_beside("echo", durable=True)),
        durable=True,
    ),
    ExtensionRow(
        "ext-cex",
        "extension: no command (cex)",
        (_service("cex"), *_beside("cex")),
        path="command/reboot",
        payload=b"{}",
    ),
)

EXTENSIONS = tuple(Probe(row.name, row.title, "us CPU", partial(_subjects, row)) for row in ROWS)
STORED = Probe("stored", "device to stored sample, CPU of all servers", "us CPU", _stored_subjects)
