"""The cluster of a soak: a nats-server with JetStream, two gateways, and extensions, with fault proxies between them.

There are two extension instances: `dcx` over core NATS with two replicas, and `stored`, durable, with one. The
reference services run in two processes.
"""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kaa_bench.errors import BenchError
from kaa_bench.processes import HOST, POLL_S, START_TIMEOUT_S, Gateway, NatsServer, Server
from kaa_bench.soak import services
from kaa_bench.soak.datagram_proxy import DatagramProxy, Faults
from kaa_bench.soak.devices import RESPONSE_TIMEOUT_S
from kaa_bench.soak.proxy import FaultProxy

GATEWAYS = 2
ALONE, WORKERS = (1, 1), (2, 1)
"""The workers of each process of the reference services."""
CORE, DURABLE = "dcx", "stored"
APPLICATION, APP_VERSION = "soak", "soak_v1"
GATEWAY_INSTANCE = "kpc-soak"
PING_TIMEOUT_S = 1
TOKEN_CACHE_S = 2
"""How long a gateway uses the answer of auth."""
BAD_NETWORK = Faults(drop=0.05, duplicate=0.05, reorder=0.05, hold=0.1, jitter=0.01)
"""The faults between devices and gateways at all times, so that messages are repeated during every other fault."""


class Datagrams(NamedTuple):
    """The counts of datagrams of devices and to devices. Lost ones were not forwarded."""

    forwarded: int
    lost: int
    repeated: int
    held: int


class SoakGateway(Gateway):
    """A gateway of one worker, connected to NATS through a proxy."""

    def __init__(self, number: int, nats: NatsServer, nats_port: int, *, asks_auth: bool) -> None:
        super().__init__(nats)
        self._asks_auth = asks_auth
        self._number = number
        self._nats_port = nats_port

    def environment(self) -> dict[str, str]:
        """See `Server.environment`."""
        return super().environment() | {"NATS_URLS": f"nats://{HOST}:{self._nats_port}"}

    def configuration(self) -> dict[str, Any]:
        """See `Gateway.configuration`."""
        document: dict[str, Any] = super().configuration()
        document["service"] = {
            "instance": {"name": GATEWAY_INSTANCE, "replica": {"id": f"soak-{self._number}"}},
            "graceful-shutdown": 10,
        }
        kaa = document["kaa"]
        if self._asks_auth:
            kaa["kpc"]["identity"] = {
                "provider": "ecap",
                "ecap": {"service-instance": "auth", "cache-ttl": TOKEN_CACHE_S, "negative-cache-ttl": 0},
            }
        kaa["applications"] = {
            APPLICATION: {
                "versions": {
                    APP_VERSION: {"allowed-extension-instances": [CORE, DURABLE, *services.INSTANCES]}
                }
            }
        }
        kaa["extension-instances"] = {
            CORE: {"endpoint-aware": True},
            DURABLE: {"endpoint-aware": True, "durable": True},
        } | {name: {"endpoint-aware": True} for name in services.INSTANCES}
        kaa["kpc"]["nats"] = {"ping-timeout": PING_TIMEOUT_S}
        for plugin in kaa["kpc"]["transports"]["protocols"].values():
            plugin["app-version"] = APP_VERSION
        for transport in ("http", "coap"):
            kaa["kpc"]["transports"][transport]["response-timeout"] = RESPONSE_TIMEOUT_S
        kaa["kpc"]["durable"] = {"ack-timeout": PING_TIMEOUT_S}
        return document


class SoakExtension(Server):
    """A replica of an extension."""

    name = "extension"

    def __init__(self, nats: NatsServer, instance: str, record: Path) -> None:
        super().__init__()
        self.instance = instance
        self._nats = nats
        self._record = record

    def command(self) -> list[str]:
        """See `Server.command`."""
        kind = "durable" if self.instance == DURABLE else "core"
        url = f"nats://{HOST}:{self._nats.ports[0]}"
        module = "kaa_bench.soak.extension"
        return [
            sys.executable,
            "-P",
            "-m",
            module,
            str(self._record),
            url,
            self.instance,
            GATEWAY_INSTANCE,
            kind,
        ]

    def _ready(self) -> bool:
        return "ready" in self._log.read_text(errors="replace")


class SoakServices(Server):
    """The reference services, in one process or in several workers."""

    name = "services"

    def __init__(self, nats: NatsServer, workers: int) -> None:
        super().__init__()
        self._nats = nats
        self.workers = workers

    def command(self) -> list[str]:
        """See `Server.command`."""
        settings = self.directory / "services.yml"
        settings.write_text(yaml.safe_dump(services.SETTINGS))
        url = f"nats://{HOST}:{self._nats.ports[0]}"
        options = ["--settings", str(settings), "--nats", url, "--gateway-instance", GATEWAY_INSTANCE]
        program = [sys.executable, "-P", "-m", "kaa_ext", "run"]
        return [
            *program,
            *services.SERVICES,
            *options,
            "--workers",
            str(self.workers),
            "--log-level",
            "error",
        ]

    def _ready(self) -> bool:
        return "ready" in self._log.read_text(errors="replace")


class Cluster:
    """The running cluster. `seed` decides which datagrams are lost.

    With `only_services` it has no extensions beside the reference services. Gateways then ask auth for tokens, and one
    of the two processes of services is a supervisor with two workers.
    """

    def __init__(self, stack: ExitStack, *, seed: int, only_services: bool = False) -> None:
        self.nats = stack.enter_context(NatsServer(jetstream=True))
        self.nats_proxy = stack.enter_context(FaultProxy(self.nats.ports[0]))
        self.gateways = [
            stack.enter_context(SoakGateway(number, self.nats, self.nats_proxy.port, asks_auth=only_services))
            for number in range(GATEWAYS)
        ]
        self.record = self.nats.directory / "record"
        self.extensions = [
            stack.enter_context(SoakExtension(self.nats, instance, self.record))
            for instance in (() if only_services else (CORE, CORE, DURABLE))
        ]
        self.services = [
            stack.enter_context(SoakServices(self.nats, workers))
            for workers in (WORKERS if only_services else ALONE)
        ]
        self.device_proxies = {
            protocol: [
                stack.enter_context(FaultProxy(gateway.address_of(protocol)[1])) for gateway in self.gateways
            ]
            for protocol in ("mqtt", "http")
        }
        self.datagram_proxies = {
            protocol: [
                DatagramProxy(gateway.address_of(protocol)[1], BAD_NETWORK, seed=seed + number)
                for number, gateway in enumerate(self.gateways)
            ]
            for protocol in ("coap", "kpudp")
        }

    async def open_datagram_proxies(self, stack: AsyncExitStack) -> None:
        """Start the datagram proxies in this event loop."""
        for proxies in self.datagram_proxies.values():
            for proxy in proxies:
                await stack.enter_async_context(proxy)

    def ports(self, protocol: str) -> list[int]:
        """Return the gateways' ports for devices of a protocol."""
        return [proxy.port for proxy in (self.device_proxies | self.datagram_proxies)[protocol]]

    def datagrams(self) -> Datagrams:
        """Return the counts of datagrams over all proxies."""
        proxies = [proxy for proxies in self.datagram_proxies.values() for proxy in proxies]
        return Datagrams(
            sum(proxy.to_server + proxy.to_client for proxy in proxies),
            sum(proxy.dropped for proxy in proxies),
            sum(proxy.repeated for proxy in proxies),
            sum(proxy.held for proxy in proxies),
        )


async def end(server: Server, number: signal.Signals) -> None:
    """Send a signal to a process, and wait until it has ended."""
    os.kill(server.pid, number)
    await asyncio.to_thread(server.wait)


async def start(server: Server) -> None:
    """Start a server again with the same files and ports."""
    await asyncio.to_thread(server.start)


async def held(server: Server, seconds: float) -> None:
    """Suspend a process for a time."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def until_accepting(server: Server) -> None:
    """Wait until a running server answers again."""
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
    while not await asyncio.to_thread(server.is_ready):
        if asyncio.get_running_loop().time() > deadline:
            raise BenchError(f"{server.name} does not answer: {server.output()}")
        await asyncio.sleep(POLL_S)
