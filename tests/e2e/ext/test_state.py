"""State in JetStream: the tests of state in memory, and those that need a server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from kaa_ext import Extension, State
from kaa_ext.testing import online

from tests.support.nats import NatsServer
from tests.unit.ext.sdk.test_state import (
    Tally,
    Where,
    test_a_change_that_raises_changes_nothing,
    test_changes_of_two_replicas_are_all_there,
    test_each_replica_is_told_of_changes,
    test_values_by_key,
)

__all__ = [
    "test_a_change_that_raises_changes_nothing",
    "test_changes_of_two_replicas_are_all_there",
    "test_each_replica_is_told_of_changes",
    "test_values_by_key",
]


@pytest.fixture
async def tallies() -> AsyncIterator[list[State[Tally]]]:
    """The same state, as two replicas see it."""
    replicas = [Extension("svc") for _ in range(2)]
    states = [replica.state("tallies", Tally) for replica in replicas]
    async with online(*replicas):
        yield states


@pytest.fixture
def where() -> Where:
    """The way to run extensions."""
    return online


async def test_state_that_is_gone_is_503_to_the_device() -> None:
    extension = Extension("svc")
    state = extension.state("tallies", Tally)

    @extension.handler("/count")
    async def count(request: object) -> None:
        await state.put("k", value=Tally(1))

    async with online(extension) as gateway:
        assert (await gateway.request("svc", "/count")).status_code == 200
        await extension.jetstream().delete_stream("KV_svc-tallies")
        answer = await gateway.request("svc", "/count")
        assert (answer.status_code, answer.reason_phrase) == (503, "State is not available")
        assert extension.stats["failed"] == 0


async def test_entries_are_all_there_each_time_and_leave_nothing_behind() -> None:
    extension = Extension("svc")
    state = extension.state("tallies", Tally)
    async with online(extension):
        for number in range(50):
            await state.put("k", str(number), value=Tally(number))
            assert len([key async for key, _ in state.entries()]) == (2 if number else 1)
            await state.change("k", str(number), change=lambda tally: None)
            await state.put("always", value=Tally())
        info = await extension.jetstream().stream_info("KV_svc-tallies")
        assert info.state.consumer_count == 1, "that of the copy in memory"


async def test_a_start_waits_for_jetstream(nats_server: NatsServer) -> None:
    extension = Extension("svc", nats_urls=[nats_server.url])
    extension.state("tallies", Tally)
    starting = asyncio.create_task(extension.start())
    done, _ = await asyncio.wait({starting}, timeout=0.3)
    assert not done
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
