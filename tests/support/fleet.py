"""Several workers of one service instance in the test's own process, on one NATS, as replicas of each other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
from kaa_gateway.app.worker import Worker
from kaa_gateway.config import Config
from kaa_gateway.config.keys import IdentitySettings

from tests.support.esp import until
from tests.support.worker import configuration, running_worker_of


class Fleet:
    """The workers, and what their metrics say."""

    def __init__(self, workers: list[Worker]) -> None:
        self.workers = workers
        self.ports = [worker.ports["mqtt"] for worker in workers]

    def claims(self, result: str) -> int:
        """Return how many CONNECTs had this result."""
        return sum(worker.directory.claims.results[result] for worker in self.workers)

    def moved(self) -> int:
        """Return how many sessions have come from another worker."""
        return sum(worker.directory.transfers.sessions["in"] for worker in self.workers)

    def sessions(self) -> list[Any]:
        """Return all sessions."""
        return [
            session
            for worker in self.workers
            for slot in range(worker.sessions.slot_count())
            if (session := worker.sessions.at(slot)) is not None
        ]

    def online(self) -> int:
        """Return the number of sessions whose clients are connected."""
        return sum(session.describe()["online"] for session in self.sessions())

    def count(self) -> int:
        """Return the number of sessions."""
        return sum(worker.sessions.count for worker in self.workers)

    def reason(self, event: str, reason: str) -> int:
        """Return how often this has happened on any worker."""
        return sum(worker.counters.by_reason().get((event, reason), 0) for worker in self.workers)

    async def settled(self) -> None:
        """Return when the workers know of each other, and nothing is under way."""
        await until(
            lambda: not any(worker.directory.others.alone for worker in self.workers),
            "the workers to know of each other",
        )
        await asyncio.sleep(0.05)


def replica_configuration(
    urls: tuple[str, ...],
    number: int,
    mqtt: dict[str, Any],
    nats: dict[str, Any],
    identity: IdentitySettings | None = None,
) -> Config:
    """Return the configuration of one worker; `mqtt` and `nats` are settings."""
    config = configuration(*urls, **nats)
    replace = msgspec.structs.replace
    replica = replace(config.service.instance.replica, id=f"replica-{number}")
    service = replace(config.service, instance=replace(config.service.instance, replica=replica))
    transports = replace(config.transports, mqtt=replace(config.transports.mqtt, **mqtt))
    return replace(config, service=service, transports=transports, identity=identity or config.identity)


@asynccontextmanager
async def fleet(
    url: str | list[str],
    count: int = 2,
    *,
    mqtt: dict[str, Any] | None = None,
    identity: IdentitySettings | None = None,
    **nats: Any,
) -> AsyncIterator[Fleet]:
    """Yield `count` workers that serve; worker i connects to `url`, or to the ith of several."""
    urls = [url] * count if isinstance(url, str) else url
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(
                running_worker_of(replica_configuration((urls[number],), number, mqtt or {}, nats, identity))
            )
            for number in range(count)
        ]
        found = Fleet(workers)
        if count > 1:
            await found.settled()
        yield found
