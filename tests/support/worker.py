"""A worker in the test's own process, with MQTT only, whose link is its only connection to NATS.

So a test sees the link's counters, and a scripted server (tests/support/fake_nats.py) only the link. The gateway as
a process of its own is tests/support/gateway.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

from kaa_gateway.app.worker import Worker
from kaa_gateway.bus.clock_skew import ClockSkew
from kaa_gateway.config import AppVersion, Config, ExtensionInstance
from kaa_gateway.config.keys import (
    Coap,
    Http,
    Instance,
    Mqtt,
    MqttTcp,
    Nats,
    Replica,
    Server,
    Service,
    Transports,
    Udp,
)

from tests.support.gateway import INSTANCE, REPLICA
from tests.support.nats import HOST

START_TIMEOUT_S = 20.0
APP_VERSION = "app_v1"
EXTENSION = "dcx"


class NoControl:
    """A control connection that drops all events."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.connected = False
        self.jetstream_domain = None
        self.dropped = 0
        self.event_size_max = 1024 * 1024
        self.clock_skew = ClockSkew()

    def start(self) -> None:
        pass

    def subscribe(self, *arguments: Any, **keywords: Any) -> None:
        pass

    def answer(self, *arguments: Any) -> None:
        pass

    def when_reconnected(self, act: object) -> None:
        pass

    def waiting(self) -> int:
        return 0

    def publish_event(self, subject: str, datum: bytes) -> None:
        pass

    async def publish(self, subject: str, payload: bytes) -> None:
        pass

    async def request(self, subject: str, payload: bytes, timeout: float) -> bytes:
        raise AssertionError("nothing is asked without the control connection")

    async def stop(self) -> None:
        pass


def configuration(*urls: str, **nats: Any) -> Config:
    """Return a configuration of one application version with one extension; `nats` are settings of `kaa.kpc.nats`."""
    return Config(
        service=Service(instance=Instance(name=INSTANCE, replica=Replica(id=REPLICA)), graceful_shutdown=0.5),
        server=Server(port=0),
        transports=Transports(
            bind_address=HOST,
            mqtt=Mqtt(tcp=MqttTcp(port=0)),
            http=Http(enabled=False),
            coap=Coap(port=0),
            udp=Udp(port=0),
        ),
        nats=Nats(urls=urls, **nats),
        app_versions={
            APP_VERSION: AppVersion(name=APP_VERSION, application="app", allowed=frozenset({EXTENSION}))
        },
        extension_instances={EXTENSION: ExtensionInstance(name=EXTENSION)},
    )


@asynccontextmanager
async def starting_worker(*urls: str, **nats: Any) -> AsyncIterator[tuple[Worker, "asyncio.Task[None]"]]:
    """Yield a worker, and the task of its start, which ends when the link is up and MQTT is served."""
    async with _starting(configuration(*urls, **nats)) as started:
        yield started


@asynccontextmanager
async def _starting(config: Config) -> AsyncIterator[tuple[Worker, "asyncio.Task[None]"]]:
    with patch("kaa_gateway.app.nats_connections.Control", NoControl):
        worker = Worker(config)
    start = asyncio.create_task(worker.start())
    try:
        yield worker, start
    finally:
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        await worker.stop()


@asynccontextmanager
async def running_worker(*urls: str, **nats: Any) -> AsyncIterator[Worker]:
    """Yield a worker that serves."""
    async with starting_worker(*urls, **nats) as (worker, start):
        await asyncio.wait_for(start, START_TIMEOUT_S)
        yield worker


@asynccontextmanager
async def running_worker_of(config: Config) -> AsyncIterator[Worker]:
    """Yield a worker with this configuration that serves."""
    async with _starting(config) as (worker, start):
        await asyncio.wait_for(start, START_TIMEOUT_S)
        yield worker
