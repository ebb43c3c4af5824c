"""Migration from KPC: two communication services of different instance names on one NATS, behind HAProxy.

The gateway stands for both. HAProxy hashes the client identifier, so a percentage of the devices moves, and those that
have moved stay when the percentage grows (docs/migrate-from-kpc.md).
"""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from kaa_bench.mqtt_packets import Publish
from kaa_ext import Extension
from kaa_ext.services import echo

from tests.support.devices import APP_VERSION, TIMEOUT_S
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import MqttPeer, mqtt_client
from tests.support.nats import HOST, NatsServer, free_port

HAPROXY = shutil.which("haproxy")
START_TIMEOUT_S = 30.0
DEVICES = 16
INSTANCES = ("kpc", "kpc-trial")
CONFIGURATION = """
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend mqtt
  bind {host}:{port}
  tcp-request inspect-delay 5s
  tcp-request content reject unless {{ req.payload(0,0),mqtt_is_valid }}
  use_backend gateway if {{ req.payload(0,0),mqtt_field_value(connect,client_identifier),crc32,mod(100) lt {share} }}
  default_backend kpc
backend kpc
  server kpc {host}:{kpc}
backend gateway
  server gateway {host}:{gateway}
"""
"""The one in docs/migrate-from-kpc.md, with ports of the test."""

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")


@contextmanager
def haproxy(directory: Path, kpc: int, gateway: int, share: int) -> Iterator[int]:
    """HAProxy on the port that this yields. It gives `share` percent of the devices to `gateway`."""
    assert HAPROXY is not None
    port = free_port()
    file, log_file = directory / "haproxy.cfg", directory / "haproxy.log"
    file.write_text(CONFIGURATION.format(host=HOST, port=port, kpc=kpc, gateway=gateway, share=share))
    with log_file.open("wb") as log:
        process = subprocess.Popen([HAPROXY, "-db", "-f", str(file)], stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection((HOST, port)).close()
                break
            except OSError:
                assert process.poll() is None, log_file.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@asynccontextmanager
async def fleet(port: int) -> AsyncIterator[dict[str, MqttPeer]]:
    """The devices, connected through HAProxy."""
    async with AsyncExitStack() as stack:
        names = [f"device-{number}" for number in range(DEVICES)]
        peers = [await stack.enter_async_context(mqtt_client(port, name)) for name in names]
        yield dict(zip(names, peers, strict=True))


async def answered(peer: MqttPeer, name: str) -> None:
    """Send a request at QoS 1, and wait for its PUBACK and the answer of the extension."""
    topic = f"kp1/{APP_VERSION}/echo/{name}/ask/7"
    await peer.send(Publish(topic, name.encode(), 1, 1))
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            packet = await peer.receive()
            if isinstance(packet, Publish) and packet.topic == f"{topic}/status":
                assert packet.payload == name.encode()
                return


def connected(gateway: GatewayProcess) -> float:
    return gateway.metrics()["connections", "mqtt"]


async def place(extension: Extension, peer: MqttPeer, name: str) -> str:
    """Push to a device by the name of each communication service, and return the name of the one that has it."""
    for instance in INSTANCES:
        await extension.push(name, "/where", instance.encode(), gateway_instance=instance)
    topic = f"kp1/{APP_VERSION}/echo/{name}/where/status"
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            packet = await peer.receive()
            if isinstance(packet, Publish) and packet.topic == topic:
                break
    # The other service does not have the device, and drops its push.
    assert await peer.until_pingresp() == []
    return packet.payload.decode()


async def test_devices_move_by_percentage_and_back(tmp_path: Path, nats_server: NatsServer) -> None:
    kpc = GatewayProcess(nats_server.url)
    ours = GatewayProcess(
        nats_server.url, {"service": {"instance": {"name": INSTANCES[1], "replica": {"id": "trial-1"}}}}
    )
    extension = Extension("echo", nats_urls=[nats_server.url])
    echo.register(extension)
    moved: list[set[str]] = []
    async with extension:
        with kpc, ours:
            for share in (0, 25, 60, 100, 0):
                with haproxy(tmp_path, kpc.mqtt_port, ours.mqtt_port, share) as port:
                    async with fleet(port) as devices:
                        for name, peer in devices.items():
                            await answered(peer, name)
                        places = {name: await place(extension, peer, name) for name, peer in devices.items()}
                assert set(places.values()) <= set(INSTANCES)
                moved.append({name for name, instance in places.items() if instance == INSTANCES[1]})
    none, some, more, everything, back = moved
    assert (none, len(everything), back) == (set(), DEVICES, set())
    # Those that have moved stay when more of them move.
    assert set() < some < more < everything
