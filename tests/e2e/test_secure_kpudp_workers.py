"""Encrypted KP/UDP in a gateway of several workers: a device that moves stays with its worker; keys change."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from kaa_bench.peers.secure_kpudp_client import SecureKpudpClient
from kaa_ext import Extension
from kaa_ext.services import echo

from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer, free_port
from tests.support.processes import alive, children

DEVICES = 16
MOVES = 6
START_S = 120.0
ACK_TIMEOUT_S = 0.5


def key_of(number: int) -> bytes:
    return bytes([number]) * 16


class SecureGateway(GatewayProcess):
    """A gateway of two workers with encrypted KP/UDP and keys for the devices."""

    def __init__(self, nats_url: str, directory: Path) -> None:
        self.psk_file = directory / "psk.yml"
        self.write_keys(range(1, DEVICES + 1))
        self.port = free_port()
        secure = {"enabled": True, "port": self.port, "psk-file": str(self.psk_file)}
        changes: dict[str, Any] = {"kaa": {"kpc": {"workers": 2, "transports": {"udp": {"secure": secure}}}}}
        super().__init__(nats_url, changes)

    def write_keys(self, numbers: range) -> None:
        lines = "".join(f"  device-{number}: {key_of(number).hex()}\n" for number in numbers)
        self.psk_file.write_text(f"keys:\n{lines}")

    def device(self, number: int) -> SecureKpudpClient:
        return SecureKpudpClient(
            self.port, f"device-{number}".encode(), key_of(number), ack_timeout=ACK_TIMEOUT_S
        )

    def workers(self) -> list[int]:
        found = children(self.pid)
        return sorted(pid for pid, command in found.items() if "spawn_main" in command and alive(pid))


@pytest.fixture
def gateway(nats_server: NatsServer, tmp_path: Path) -> Iterator[SecureGateway]:
    gateway = SecureGateway(nats_server.url, tmp_path)
    try:
        gateway.start()
        yield gateway
        gateway.stop()
        assert "Traceback" not in gateway.log, gateway.log
    finally:
        gateway.close()


async def test_moves_restarts_and_other_keys(gateway: SecureGateway, nats_server: NatsServer) -> None:
    extension = Extension("echo", nats_urls=[nats_server.url])
    echo.register(extension)
    async with extension, AsyncExitStack() as stack:
        devices = [
            await stack.enter_async_context(gateway.device(number)) for number in range(1, DEVICES + 1)
        ]
        for number, device in enumerate(devices):
            await device.confirmed(f"kp1/app_v1/echo/t{number}/a", b"1")
        workers = {device.saved().connection_id[0] for device in devices}
        assert workers == {0, 1}  # the kernel has spread them
        for move in range(1, MOVES + 1):
            for number, device in enumerate(devices):
                await device.rebind()
                answer = await device.request(f"kp1/app_v1/echo/t{number}/a", b"hello")
                assert answer.payload == b"hello"
            for device in devices:
                await until(lambda device=device, move=move: device.moves >= move, "the check of the path")  # type: ignore[misc]
        assert all(device.handshakes == 1 for device in devices)
        assert not any(device.resets for device in devices)

        # A worker that dies takes its sessions with it; those of the other stay.
        victim = gateway.workers()[0]
        os.kill(victim, signal.SIGKILL)
        await until(
            lambda: victim not in gateway.workers() and len(gateway.workers()) == 2, "another", START_S
        )
        for number, device in enumerate(devices):
            answer = await device.request(f"kp1/app_v1/echo/t{number}/a", b"hello")
            assert answer.payload == b"hello"
        assert 0 < sum(device.handshakes == 2 for device in devices) < DEVICES

        # A key that is taken away ends its session; others stay.
        before = [device.handshakes for device in devices]
        gateway.write_keys(range(2, DEVICES + 1))
        await until(lambda: gateway.count("events", "closed", "kpudp_key_removed") == 1, "the end", START_S)
        for number, device in enumerate(devices[1:], 1):
            await device.confirmed(f"kp1/app_v1/echo/t{number}/a", b"1")
        assert [device.handshakes for device in devices[1:]] == before[1:]

        async def keep_sending() -> None:
            while True:  # a worker that has not read the file yet takes it once more
                await devices[0].confirmed("kp1/app_v1/echo/t0/a", b"1")

        refused = asyncio.create_task(keep_sending())
        await until(
            lambda: gateway.count("events", "dropped", "kpudp_open_not_authentic") > 0, "no session", START_S
        )
        refused.cancel()
