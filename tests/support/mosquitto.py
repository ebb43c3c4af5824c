"""A Mosquitto broker on a free loopback port, which it keeps over every restart; and clients that are its devices."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import aiomqtt
import pytest

from tests.support.certificates import Issued
from tests.support.nats import HOST, POLL_S, START_TIMEOUT_S, free_port

RECEIVE_TIMEOUT_S = 60.0


def mosquitto_binary() -> str:
    """Return the broker's program; skip the test where there is none."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if found is None:
        pytest.skip("mosquitto is not installed")
    return found


class Mosquitto:
    """One broker. What it keeps for clients survives a restart."""

    def __init__(self, tls: tuple[Path, Issued] | None = None) -> None:
        """With `tls` (authority, certificate) it has another listener, whose clients show certificates."""
        self.port = free_port()
        self.tls_port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="mosquitto-"))
        self._config = self._directory / "mosquitto.conf"
        self._log = self._directory / "broker.log"
        self._config.write_text(
            f"listener {self.port} {HOST}\nallow_anonymous true\nmax_queued_messages 100000\n"
            f"persistence true\npersistence_location {self._directory}/\nautosave_interval 1\n"
            f"autosave_on_changes true\nuser root\nset_tcp_nodelay true\n"
        )
        if tls is not None:
            authority, issued = tls
            with self._config.open("a") as config:
                config.write(
                    f"listener {self.tls_port} {HOST}\ncafile {authority}\ncertfile {issued.cert_file}\n"
                    f"keyfile {issued.key_file}\nrequire_certificate true\n"
                )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What a bridge connects to."""
        return f"mqtt://{HOST}:{self.port}"

    @property
    def tls_url(self) -> str:
        """What a bridge connects to with TLS."""
        return f"mqtts://localhost:{self.tls_port}"

    def start(self) -> None:
        """Start it, and return when it accepts connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [mosquitto_binary(), "-c", str(self._config)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"mosquitto did not start:\n{self._log.read_text()}")
            time.sleep(POLL_S)

    def _accepts(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), 1.0).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End it with SIGTERM, as an operator does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop it and remove its files."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    @asynccontextmanager
    async def device(self, *topic_filters: str) -> AsyncIterator[BrokerDevice]:
        """Yield a device of the broker that has subscribed."""
        async with aiomqtt.Client(HOST, self.port) as client:
            for topic_filter in topic_filters:
                await client.subscribe(topic_filter, qos=1)
            yield BrokerDevice(client)


class BrokerDevice:
    """A device that knows only the broker."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._messages = client.messages

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Publish; at QoS 1, return when the broker has acknowledged."""
        await self._client.publish(topic, payload, qos=qos)

    async def message(self) -> tuple[str, bytes]:
        """Return the next message."""
        message = await asyncio.wait_for(anext(self._messages), RECEIVE_TIMEOUT_S)
        assert isinstance(message.payload, bytes)
        return str(message.topic), message.payload
