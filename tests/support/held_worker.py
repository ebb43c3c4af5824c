"""A gateway worker inside the test's process, for tests that must hold back or refuse what it asks for."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import uvloop
from kaa_gateway.app.identity import make_identity
from kaa_gateway.app.worker import Worker
from kaa_gateway.config import load
from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.provider import Identity

from tests.support.gateway import configuration, merged


class HeldProvider:
    """An identity provider that is told when to answer.

    A token is its endpoint's ID, except that `hold...` waits for `release`, `refused...` is 401, and `broken...` makes
    the provider fail. `asked` are the tokens it was asked for, in order.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._released = asyncio.Event()

    async def start(self) -> None:
        """Do nothing: the provider is ready."""

    async def stop(self) -> None:
        """Do nothing: the provider holds nothing."""

    def release(self) -> None:
        """Answer what is held."""
        self._released.set()

    def scope(self, app_version_name: str) -> str:
        return app_version_name

    def known(self, scope: str, token: str) -> Identity | None:
        return None

    async def resolve(self, scope: str, token: str) -> Identity:
        self.asked.append(token)
        if token.startswith("hold"):
            await self._released.wait()
        if "refused" in token:
            raise IdentityError(401, "token_rejected")
        if "broken" in token:
            raise RuntimeError("the provider has a bug")
        return Identity(token)


class HeldWorker(Worker):
    """A worker with a provider that is held."""

    provider: HeldProvider


@asynccontextmanager
async def held_worker(
    directory: Path, nats_url: str, changes: Mapping[str, Any] | None = None
) -> AsyncIterator[HeldWorker]:
    """Yield a worker that serves devices; its ports are in `ports`. Needs a running uvloop: see `run_on_uvloop`."""
    path = directory / "service-config.yml"
    path.write_text(json.dumps(merged(configuration(), changes or {})), encoding="utf-8")
    provider = HeldProvider()
    with patch("kaa_gateway.app.worker.make_identity", partial(make_identity, provider=provider)):
        worker = HeldWorker(load(path, {"NATS_URLS": nats_url}))
    worker.provider = provider
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


def run_on_uvloop(main: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine on the gateway's own event loop, which the NATS link needs."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
