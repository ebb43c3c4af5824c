"""Runs extensions in one process until SIGINT or SIGTERM."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from kaa_gateway import stdio

from kaa_ext.sdk.route import Route

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Service(Protocol):
    """Something that can be started and stopped, and is observed meanwhile: an `Extension`."""

    name: str

    @property
    def obstacles(self) -> list[str]:
        """Return the reasons why requests are not taken now; none if they are."""

    @property
    def stats(self) -> dict[str, int]:
        """Return how often each event has happened."""

    @property
    def routes(self) -> Iterable[Route]:
        """Return the handlers, with the counters of their requests."""

    @property
    def running(self) -> int:
        """Return how many requests are in progress."""

    @property
    def waiting(self) -> int:
        """Return how many received messages wait."""

    @property
    def unconfirmed_bytes(self) -> int:
        """Return how many bytes NATS has not confirmed."""

    async def start(self) -> None:
        """Start, and return when the service is ready."""

    async def stop(self) -> None:
        """Finish what is in flight. Harmless for a service that was not started."""


async def run(
    *services: Service,
    management: str | Path | None = None,
    on_ready: Callable[[], None] = lambda: None,
    signals: Sequence[signal.Signals] = SIGNALS,
) -> None:
    """Start the services, call `on_ready`, and stop them at one of the signals; a second signal cuts that short.

    `management` is HOST:PORT, or the path of a Unix socket, for health and metrics of the services.
    """
    manager = None
    if management is not None:
        from kaa_ext.sdk.management import Management  # it needs an HTTP server, which takes time to import

        manager = Management(management, services)
    started: list[Service] = []

    async def start() -> None:
        if manager is not None:
            await manager.start()
        for service in services:
            await service.start()
            started.append(service)
        on_ready()

    async def stop() -> None:
        await asyncio.gather(*(service.stop() for service in started))
        if manager is not None:
            await manager.stop()

    await until_signalled(start, stop, signals)


async def until_signalled(
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
    signals: Sequence[signal.Signals] = SIGNALS,
) -> None:
    """Await `start`, then one of the signals, then `stop`. A signal during the start cancels it.

    `stop` is awaited in any case. A second signal has its usual effect.
    """
    # What services log or print must not end them.
    stdio.protect(stdout=True)
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()

    def on_signal() -> None:
        signalled.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, on_signal)
    starting = asyncio.ensure_future(start())
    stopping = asyncio.create_task(signalled.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await stopping
    finally:
        stopping.cancel()
        starting.cancel()
        await asyncio.wait({starting})
        await stop()
        for number in signals:
            loop.remove_signal_handler(number)
