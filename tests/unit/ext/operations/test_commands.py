"""Waiting for the result of a command, without NATS: a read that comes before JetStream has stored a change."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kaa_ext.operations import commands
from kaa_ext.services import cex

RESULT = cex.Result(200, 1, "demo_application_v1", "Done")
OUTSTANDING = cex.Outstanding([cex.Command(type="reboot", id=7, deadline=1, push_id="1", correlation_id="1")])


class LateState:
    """A state whose reads find a value only from a given read on."""

    def __init__(self, value: Any, reads_without: int) -> None:
        self._value = value
        self._reads_without = reads_without
        self.reads = 0

    async def get(self, *key: str) -> Any:
        self.reads += 1
        return self._value if self.reads > self._reads_without else None


class Subscription:
    async def unsubscribe(self) -> None: ...


class Client:
    """A client that delivers one message to each subscription at once, as a publish does."""

    def __init__(self) -> None:
        self.deliveries: set[asyncio.Task[None]] = set()

    async def subscribe(self, subject: str, cb: Callable[[Any], Awaitable[None]]) -> Subscription:
        async def deliver() -> None:
            await cb(None)

        self.deliveries.add(asyncio.create_task(deliver()))
        return Subscription()


class Session:
    def __init__(self, results: LateState) -> None:
        self.client = Client()
        self._states = {cex.OUTSTANDING: LateState(OUTSTANDING, 0), cex.RESULTS: results}

    async def state(self, instance: str, name: str, kind: type) -> LateState:
        return self._states[name]


async def test_a_result_that_is_stored_after_its_message_is_awaited() -> None:
    results = LateState(RESULT, reads_without=3)
    session: Any = Session(results)
    found = await commands.get(session, "cex", "e", "reboot", 7, wait_s=30)
    assert found is not None
    assert found.result is RESULT
    assert results.reads == 4


async def test_a_result_that_never_comes_leaves_the_command_outstanding() -> None:
    session: Any = Session(LateState(RESULT, reads_without=10**9))
    found = await commands.get(session, "cex", "e", "reboot", 7, wait_s=0.2)
    assert found is not None
    assert found.result is None
