"""Runs extensions in one process until SIGINT or SIGTERM."""

import asyncio
import signal
from collections.abc import Callable
from typing import Protocol

from kaa_gateway import stdio

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Service(Protocol):
    """Something that can be started and stopped: an `Extension`."""

    async def start(self) -> None:
        """Start, and return when the service is ready."""

    async def stop(self) -> None:
        """Finish what is in flight. Harmless for a service that was not started."""


async def run(*services: Service, on_ready: Callable[[], None] = lambda: None) -> None:
    """Start the services, call `on_ready`, and stop them at SIGINT or SIGTERM; a second signal cuts that short."""
    # What services log or print must not end them.
    stdio.protect(stdout=True)
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()

    def on_signal() -> None:
        signalled.set()
        for number in SIGNALS:
            loop.remove_signal_handler(number)

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal)
    started: list[Service] = []

    async def start() -> None:
        for service in services:
            await service.start()
            started.append(service)
        on_ready()

    starting = asyncio.create_task(start())
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
        await asyncio.gather(*(service.stop() for service in started))
        for number in SIGNALS:
            loop.remove_signal_handler(number)
