"""Measures the cost of an extension service per request of a device, beside services that do the same without the SDK.

The requests come through the gateway, pipelined. The figure is the CPU of the extension's process; that of nats-server
is in the details.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kaa_bench.compare.extensions import ExtensionServer, FastStreamExtension, KaaExt, NatsPyExtension
from kaa_bench.compare.figures import Figure, Probe, Scale, Subject
from kaa_bench.compare.instruments import LoadGenerator
from kaa_bench.compare.servers import Servers
from kaa_bench.connecting import LoadSpec
from kaa_bench.errors import BenchError
from kaa_bench.packets import EXTENSION, PAYLOAD, REQUEST_ID, Profile
from kaa_bench.processes import Gateway, NatsServer

CONNECTIONS = 32
WINDOW = 64
"""Requests of a connection that wait for their answer."""
WARM_UP_S = 0.5
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
    row: ExtensionRow, service: ExtensionServer, gateway: Gateway, nats: NatsServer, seconds: float
) -> Figure:
    """Return the CPU microseconds of the extension's process per request."""
    with service, LoadGenerator(row.load, gateway.address_of("mqtt")) as generator:
        generator.run(seconds=WARM_UP_S)
        extension_cpu, nats_cpu = service.cpu_seconds(), nats.cpu_seconds()
        result = generator.run(seconds=seconds)
        extension_cpu, nats_cpu = service.cpu_seconds() - extension_cpu, nats.cpu_seconds() - nats_cpu
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


def _subjects(row: ExtensionRow, servers: Servers, scale: Scale) -> list[Subject]:
    if row.durable:
        gateway, nats = servers.durable_gateway, servers.storing_nats
    else:
        gateway, nats = servers.extension_gateway, servers.extension_nats
    services = [service(nats) for service in row.services]
    return [
        Subject(service.title, partial(_measure, row, service, gateway, nats, scale.seconds))
        for service in services
        if service.is_installed()
    ]


def _service(kind: str, *beside: str, **options: Any) -> Callable[[NatsServer], ExtensionServer]:
    """Return what starts a reference service in place of the bench's extension instance."""

    def start(nats: NatsServer) -> ExtensionServer:
        return KaaExt(nats, kind, *beside, **options)

    return start


ROWS = (
    ExtensionRow(
        "ext-echo",
        "extension: echo",
        (partial(KaaExt, kind="echo"), NatsPyExtension, FastStreamExtension),
    ),
    ExtensionRow("ext-tsx", "extension: the time (tsx)", (_service("tsx"),), path="time", payload=b""),
    ExtensionRow(
        "ext-dcx",
        "extension: a sample stored (dcx, epts)",
        (_service("dcx", "epts", settings={EXTENSION: {"must-confirm": ["epts"]}}),),
    ),
    ExtensionRow(
        "ext-epmx-get", "extension: metadata read (epmx)", (_service("epmx"),), path="get", payload=b""
    ),
    ExtensionRow(
        "ext-epmx-update",
        "extension: metadata changed (epmx)",
        (_service("epmx"),),
        path="update/keys",
        payload=b'{"firmware":"1.2.%s","location":"hall"}' % REQUEST_ID.encode(),
    ),
    ExtensionRow(
        "ext-cmx",
        "extension: an unchanged configuration (cmx, ecr)",
        (_service("cmx", "ecr"),),
        path="config/json",
        payload=b'{"configId":""}',
    ),
    ExtensionRow(
        "ext-cex", "extension: no command (cex)", (_service("cex"),), path="command/reboot", payload=b"{}"
    ),
)

EXTENSIONS = tuple(Probe(row.name, row.title, "us CPU", partial(_subjects, row)) for row in ROWS)
