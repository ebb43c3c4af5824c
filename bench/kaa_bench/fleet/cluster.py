"""The cluster of a fleet soak: three nats-servers that form one, three gateways with two workers each, an extension."""

import os
import random
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kaa_bench.fleet.credentials import TENANT, Credentials
from kaa_bench.fleet.names import (
    APP_VERSION,
    APPLICATION,
    EXTENSION,
    GATEWAYS,
    INSTANCE,
    WORKERS,
    replica_of,
)
from kaa_bench.processes import HOST, Gateway, NatsServer, Server, free_port, is_ready, worker_processes

NATS_SERVERS = 3
LEASE_S = 3
CLUSTER_TIMEOUT_S = 120.0
"""For a start: the servers elect a leader before a stream can be made."""
CONFIGURATION = """\
server_name: "nats-{number}"
cluster {{ name: fleet, listen: "{host}:{port}", routes: [{routes}] }}
"""


class ClusteredNats(NatsServer):
    """One of the nats-servers; its data stay when it is killed."""

    def __init__(self, number: int, ports: list[int]) -> None:
        super().__init__(jetstream=True)
        self._number = number
        self._cluster_ports = ports

    @property
    def url(self) -> str:
        """Its address."""
        return f"nats://{HOST}:{self.ports[0]}"

    def command(self) -> list[str]:
        """See `Server.command`."""
        file = self.directory / "server.conf"
        routes = ", ".join(f'"nats://{HOST}:{port}"' for port in self._cluster_ports)
        port = self._cluster_ports[self._number]
        file.write_text(CONFIGURATION.format(number=self._number, host=HOST, port=port, routes=routes))
        return [*super().command(), "--config", str(file)]


class FleetGateway(Gateway):
    """A gateway, which is connected to any of the servers, to its own at first."""

    start_timeout = CLUSTER_TIMEOUT_S

    def __init__(self, number: int, servers: list[ClusteredNats], credentials: Credentials) -> None:
        super().__init__(servers[number % len(servers)], WORKERS)
        self._credentials = credentials
        self.number = number
        self.killed_at: list[float] = []
        """When workers were killed, as Unix time."""
        self._servers = servers

    def environment(self) -> dict[str, str]:
        """See `Server.environment`."""
        own = self.number % len(self._servers)
        servers = [*self._servers[own:], *self._servers[:own]]
        return super().environment() | {"NATS_URLS": ",".join(server.url for server in servers)}

    def configuration(self) -> dict[str, Any]:
        """See `Gateway.configuration`."""
        document: dict[str, Any] = super().configuration()
        document["service"] = {
            "instance": {"name": INSTANCE, "replica": {"id": replica_of(self.number)}},
            "graceful-shutdown": 20,
        }
        kaa = document["kaa"]
        kaa["applications"] = {
            APPLICATION: {
                "tenant": TENANT,
                "versions": {APP_VERSION: {"allowed-extension-instances": [EXTENSION]}},
            }
        }
        kaa["tenants"] = {TENANT: {"certificates": {"admit": "signed", "tokens": "common-name"}}}
        kaa["extension-instances"] = {EXTENSION: {"endpoint-aware": True, "durable": True}}
        kpc = kaa["kpc"]
        kpc["durable"] = {"replicas": NATS_SERVERS}
        kpc["events"] = {"presence": True, "presence-lease": LEASE_S, "presence-copies": NATS_SERVERS}
        kpc["identity"] |= {
            "clients": {"provider": "static"},
            "static": {"file": str(self._credentials.users)},
        }
        mqtt = kpc["transports"]["mqtt"]
        mqtt["client-authentication"] = "optional"
        mqtt["tls"] |= {
            "client-certificate": "required",
            "tenants": {TENANT: {"ca-file": str(self._credentials.authority)}},
        }
        # Clients use MQTT only.
        del kpc["transports"]["protocols"]
        for transport in ("http", "coap", "udp"):
            kpc["transports"][transport]["enabled"] = False
        return document

    def _ready(self) -> bool:
        return is_ready(self._management)

    def kill(self) -> None:
        """Kill the supervisor and its workers at once."""
        os.killpg(self.pid, signal.SIGKILL)
        self.killed_at.append(time.time())
        self.wait()

    def kill_worker(self, choice: random.Random) -> None:
        """Kill one of its workers."""
        os.kill(choice.choice(worker_processes(self.pid)), signal.SIGKILL)
        self.killed_at.append(time.time())


class FleetExtension(Server):
    """The extension."""

    name = "extension"
    start_timeout = CLUSTER_TIMEOUT_S

    def __init__(self, servers: list[ClusteredNats]) -> None:
        super().__init__()
        self.record = self.directory / "record"
        self._servers = servers

    def command(self) -> list[str]:
        """See `Server.command`."""
        urls = [server.url for server in self._servers]
        return [sys.executable, "-P", "-m", "kaa_bench.fleet.extension", str(self.record), *urls]

    def _ready(self) -> bool:
        return "ready" in self._log.read_text(errors="replace")


class FleetCluster:
    """The running cluster. The output of its programs remains in the directory `logs`, if that is not None."""

    def __init__(self, stack: ExitStack, credentials: Credentials, logs: Path | None) -> None:
        ports = [free_port() for _ in range(NATS_SERVERS)]
        self.nats = [ClusteredNats(number, ports) for number in range(NATS_SERVERS)]
        self.gateways = [FleetGateway(number, self.nats, credentials) for number in range(GATEWAYS)]
        self.extension = FleetExtension(self.nats)
        servers: list[Server] = [*self.nats, *self.gateways, self.extension]
        if logs is not None:
            for number, server in enumerate(servers):
                server.keep_output(logs / f"{number}-{server.name}.log")
        for server in servers:
            stack.enter_context(server)

    @property
    def ports(self) -> list[int]:
        """The MQTT ports of the gateways."""
        return [gateway.address_of("mqtt")[1] for gateway in self.gateways]

    @property
    def tls_ports(self) -> list[int]:
        """The ports of the gateways for MQTT over TLS."""
        return [gateway.carriers["tls"][1] for gateway in self.gateways]

    @property
    def urls(self) -> list[str]:
        """The addresses of the nats-servers."""
        return [server.url for server in self.nats]
