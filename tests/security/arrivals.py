"""What it costs a gateway when a fleet arrives at once: `python -m tests.security.arrivals` prints a table.

Each device connects over MQTT, publishes once at QoS 1, waits for its PUBACK, and stays. CPU and private memory
(`smaps_rollup`) are those of the gateway's process, a fresh one for each kind, from before the first device until the
last has its PUBACK and the provider has been told of all. That requests are coalesced and paced is the tests' business.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from kaa_bench.mqtt_packets import Connack, Connect, Puback, Publish, encode
from kaa_bench.processes import cpu_seconds, private_memory
from kaa_gateway.bus import subjects
from nats.aio.client import Client

from tests.support.auth_provider import INSTANCE, AuthProvider
from tests.support.encrypted import EncryptedGateway, Pki
from tests.support.nats import HOST, NatsServer

DEVICES = 10_000
DEVICES_WITH_TLS = 2_000
"""Fewer, because the other side of the handshakes is this process."""
WARM_UP = 100
CONNECTING_AT_ONCE = 500
AT_ONCE = 64
"""Tokens, and clients, that the gateway asks about at one time."""
ANSWER_S = 0.02
"""How long the provider takes for an answer."""
PATIENCE_S = 600.0
POLL_S = 0.1
ACCEPTED, TAKEN = encode(Connack(session_present=False, return_code=0)), encode(Puback(1))

WITH_TOKENS = {"provider": "ecap", "ecap": {"service-instance": INSTANCE, "requests-in-flight": AT_ONCE}}
WITH_CLIENTS = {
    **WITH_TOKENS,
    "clients": {"provider": "cap", "service-instance": INSTANCE, "requests-in-flight": AT_ONCE},
}


class Kind(NamedTuple):
    """A fleet, and the gateway that it arrives at."""

    name: str
    devices: int = DEVICES
    identity: dict[str, Any] = {"provider": "open"}  # noqa: RUF012 - never changed
    tls: ssl.TLSVersion | None = None
    certificates: bool = False
    times: int = 1

    @property
    def has_clients(self) -> bool:
        """Whether devices have user names."""
        return "clients" in self.identity


KINDS = (
    Kind("no identity"),
    Kind("tokens by 16/ECAP", identity=WITH_TOKENS, times=2),
    Kind("tokens by 16/ECAP, passwords by 22/CAP", identity=WITH_CLIENTS, times=2),
    Kind("no identity, fewer devices", DEVICES_WITH_TLS),
    Kind("TLS 1.3", DEVICES_WITH_TLS, tls=ssl.TLSVersion.TLSv1_3),
    Kind("TLS 1.3, client certificates", DEVICES_WITH_TLS, tls=ssl.TLSVersion.TLSv1_3, certificates=True),
    Kind("TLS 1.2", DEVICES_WITH_TLS, tls=ssl.TLSVersion.TLSv1_2),
)


class Fleet:
    """The devices of a kind."""

    def __init__(self, kind: Kind, gateway: EncryptedGateway, pki: Pki) -> None:
        self._kind = kind
        self._gateway = gateway
        self._writers: list[asyncio.StreamWriter] = []
        self._connecting = asyncio.Semaphore(CONNECTING_AT_ONCE)
        self._context: ssl.SSLContext | None = None
        if kind.tls is not None:
            self._context = ssl.create_default_context(cafile=pki.authority.file)
            self._context.minimum_version = self._context.maximum_version = kind.tls
            if kind.certificates:
                self._context.load_cert_chain(pki.device.cert_file, pki.device.key_file)

    async def arrive(self, devices: range) -> None:
        """All of these at once; returns when each has its PUBACK."""
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for number in devices:
                group.create_task(self._arrive(number))

    async def leave(self) -> None:
        """All go, and the gateway has seen it."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        async with asyncio.timeout(PATIENCE_S):
            while self._gateway.count("sessions"):
                await asyncio.sleep(POLL_S)

    async def _arrive(self, number: int) -> None:
        encrypted = self._context is not None
        async with self._connecting:
            reader, writer = await asyncio.open_connection(
                HOST,
                self._gateway.mqtts_port if encrypted else self._gateway.mqtt_port,
                ssl=self._context,
                server_hostname="localhost" if encrypted else None,
            )
        self._writers.append(writer)
        connect = Connect(f"device-{number}", keep_alive=0)
        if self._kind.has_clients:
            connect = connect._replace(user_name=f"user-{number}", password=b"secret")
        writer.write(encode(connect))
        assert await reader.readexactly(len(ACCEPTED)) == ACCEPTED
        writer.write(encode(Publish(f"kp1/app_v1/dcx/token-{number}/json", b"{}", 1, 1)))
        assert await reader.readexactly(len(TAKEN)) == TAKEN


@contextmanager
def gateway_of(kind: Kind, nats: NatsServer, pki: Pki) -> Iterator[EncryptedGateway]:
    """Its gateway, in a process of its own."""
    # The provider and all devices are this one process, which is slower than they would be.
    mqtt: dict[str, Any] = {"connect-timeout": 60}
    mqtt["client-authentication"] = "required" if kind.has_clients else "off"
    if kind.tls is not None:
        mqtt["tls"] = pki.section("required" if kind.certificates else "off")
    with EncryptedGateway(
        nats.url, {"mqtt": mqtt}, {"app": {"tenant": "acme"}}, identity={**kind.identity, "timeout": 60}
    ) as gateway:
        yield gateway


async def told_of_all(auth: AuthProvider, kind: Kind, count: int) -> None:
    """Return when the gateway has told the provider of the first use of so many tokens, if it does."""
    async with asyncio.timeout(PATIENCE_S):
        while kind.identity["provider"] == "ecap" and auth.asked["ecap.ep-token-status-transition"] < count:
            await asyncio.sleep(POLL_S)


async def measure(kind: Kind, nats: NatsServer, pki: Pki) -> None:
    """Print the lines of a kind."""
    client = Client()
    await client.connect(nats.url)
    await client.subscribe(subjects.service("dcx", "esp", subjects.CLIENT_DATA), "dcx")
    await client.flush()
    auth = AuthProvider(nats.url)
    auth.delay = ANSWER_S
    for number in range(WARM_UP + kind.devices):
        auth.tokens["app", f"token-{number}"] = (f"endpoint-{number}", f"id-{number}")
        auth.clients["acme", f"user-{number}", "secret"] = {"credentialsId": f"id-{number}"}
    with gateway_of(kind, nats, pki) as gateway:
        async with auth:
            fleet = Fleet(kind, gateway, pki)
            await fleet.arrive(range(WARM_UP))
            await told_of_all(auth, kind, WARM_UP)
            for time in range(kind.times):
                asked = auth.asked.total()
                cpu, memory = cpu_seconds(gateway.pid), private_memory(gateway.pid)
                auth.most_at_once = 0
                await fleet.arrive(range(WARM_UP, WARM_UP + kind.devices))
                await told_of_all(auth, kind, WARM_UP + kind.devices)
                cpu = cpu_seconds(gateway.pid) - cpu
                memory = private_memory(gateway.pid) - memory
                print(
                    f"| {kind.name}{', again' if time else ''} | {kind.devices:,} | {cpu:.2f} "
                    f"| {1e6 * cpu / kind.devices:.0f} | {auth.asked.total() - asked:,} | {auth.most_at_once} "
                    f"| {'' if time else f'{memory / 1024 / kind.devices:.1f}'} |",
                    flush=True,
                )
                await fleet.leave()
    await client.close()


def main() -> None:
    """Print the table."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("| arrival | devices | CPU s | us a device | requests to the provider | at once | KiB a device |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as directory, NatsServer() as nats:
        pki = Pki(Path(directory))
        for kind in KINDS:
            uvloop.run(measure(kind, nats, pki))
            gc.collect()


if __name__ == "__main__":
    main()
