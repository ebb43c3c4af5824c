"""State that is read from a copy in memory: it is as fresh as the server, whatever becomes of the watch."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from kaa_ext import Extension, State
from kaa_ext.sdk import watched_bucket
from kaa_ext.sdk.buckets import JetStreamBucket
from kaa_ext.sdk.errors import StateUnavailable
from kaa_ext.sdk.local_copy import LocalCopy
from kaa_ext.sdk.watched_bucket import WatchedBucket
from kaa_ext.testing import online, until

from tests.support.nats import NatsServer
from tests.unit.ext.sdk.test_state import Tally


@dataclass
class Replica:
    """One of two replicas of a service with one state."""

    extension: Extension
    state: State[Tally]
    reads: int = 0
    """Reads that went to the server."""

    @property
    def bucket(self) -> WatchedBucket:
        bucket = self.state._bucket
        assert isinstance(bucket, WatchedBucket)
        return bucket

    def count_reads(self) -> None:
        """Count the reads that go to the server from now on."""
        behind = self.bucket._bucket
        get = behind.get

        async def counted(key: str) -> Any:
            self.reads += 1
            return await get(key)

        behind.get = counted  # type: ignore[method-assign]

    async def whole(self) -> None:
        await until(lambda: self.bucket.watch_is_whole, "the copy of the bucket")

    async def cut(self) -> None:
        """Lose the consumer behind the copy, without a word to the replica."""
        name = self.bucket._consumer
        assert await self.extension.jetstream().delete_consumer("KV_svc-tallies", name)


@pytest.fixture
async def replicas() -> AsyncIterator[list[Replica]]:
    """Two replicas whose copies are whole."""
    extensions = [Extension("svc") for _ in range(2)]
    replicas = [Replica(each, each.state("tallies", Tally)) for each in extensions]
    async with online(*extensions):
        for each in replicas:
            await each.whole()
            each.count_reads()
        yield replicas


def up(tally: Tally | None) -> Tally:
    return Tally((tally or Tally()).count + 1)


async def test_each_replica_reads_what_the_other_has_written(replicas: list[Replica]) -> None:
    here, there = replicas
    for number in range(100):
        await here.state.put("k", value=Tally(number))
        assert await there.state.get("k") == Tally(number)
        assert await here.state.get("k") == Tally(number)
        await there.state.change("gone", change=lambda tally: Tally(number))  # noqa: B023 - awaited here
        await there.state.change("gone", change=lambda tally: None)
        assert await here.state.get("gone") is None
    assert await here.state.get_all([("k",), ("no",)]) == [Tally(99), None]
    assert [each.reads for each in replicas] == [0, 0]


async def test_changes_of_one_key_are_written_together_and_none_is_lost(replicas: list[Replica]) -> None:
    results = await asyncio.gather(
        *(each.state.change("k", change=up) for _ in range(300) for each in replicas)
    )
    assert {tally.count for tally in results if tally} == set(range(1, 601))
    assert await replicas[0].state.get("k") == Tally(600)
    info = await replicas[0].extension.jetstream().stream_info("KV_svc-tallies")
    assert info.state.last_seq < 300


async def test_a_change_of_nothing_is_not_computed_on_an_old_value(replicas: list[Replica]) -> None:
    """The copy of `here` stands still, so that it believes in 1; the change to 1 must be written all the same."""
    here, there = replicas
    await here.state.put("k", value=Tally(1))
    await here.cut()
    await there.state.put("k", value=Tally(2))
    assert await here.state.change("k", change=lambda tally: Tally(1)) == Tally(1)
    assert await there.state.get("k") == Tally(1)


async def test_a_value_is_never_old_after_the_watch_is_cut(replicas: list[Replica]) -> None:
    here, there = replicas
    await there.state.put("k", value=Tally(1))
    await here.cut()
    for number in range(2, 5):
        await there.state.put("k", value=Tally(number))
        assert await here.state.get("k") == Tally(number)
    assert here.reads
    before = here.bucket._watch
    await until(
        lambda: here.bucket._watch is not before and here.bucket.watch_is_whole, "another watch", 30.0
    )
    here.reads = 0
    await there.state.put("k", value=Tally(5))
    assert await here.state.get("k") == Tally(5)
    assert here.reads == 0


async def test_a_conflict_is_solved_on_the_current_value(replicas: list[Replica]) -> None:
    here, there = replicas
    await here.state.put("k", value=Tally(1))
    await here.cut()
    await there.state.put("k", value=Tally(10))
    assert await here.state.change("k", change=up) == Tally(11)
    assert await there.state.get("k") == Tally(11)


async def test_keys_beyond_the_bounds_are_read_from_the_server(replicas: list[Replica]) -> None:
    here, there = replicas
    for number in range(30):
        await there.state.put(str(number), value=Tally(number))
    extension = Extension("svc")
    state = extension.state("tallies", Tally)
    small = Replica(extension, state)
    make = state._make_bucket

    def bounded() -> WatchedBucket:
        bucket = make()
        assert isinstance(bucket, WatchedBucket)
        bucket._new_copy = lambda: LocalCopy(entries_max=10)
        return bucket

    state._make_bucket = bounded
    async with online(extension, nats_url=here.extension._connection._urls[0]):  # type: ignore[attr-defined]
        await small.whole()
        small.count_reads()
        for turn in range(2):
            for number in range(30):
                assert await state.get(str(number)) == Tally(number + 100 * turn)
                await there.state.put(str(number), value=Tally(number + 100))
            assert await state.get("no") is None
        assert small.reads >= 40
        small.reads = 0
        assert await state.get("29") == await state.get("29") == Tally(129)
        assert await state.get("no") is None
        assert small.reads == 0
        assert len(small.bucket._watch.copy) == 10  # type: ignore[union-attr]


async def test_a_bucket_that_is_made_anew_is_read_anew(replicas: list[Replica]) -> None:
    here, there = replicas
    for number in range(10):
        await here.state.put("k", value=Tally(number))
    jetstream = here.extension.jetstream()
    await jetstream.delete_key_value("svc-tallies")
    await here.bucket.open()
    assert await here.state.get("k") is None
    await there.state.put("k", value=Tally(77))
    assert await here.state.get("k") == Tally(77)


async def test_empty_values_of_deleted_keys_are_removed_later(
    replicas: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = replicas
    await here.state.put("k", value=Tally(1))
    await here.state.change("k", change=lambda tally: None)
    jetstream = here.extension.jetstream()
    assert (await jetstream.stream_info("KV_svc-tallies")).state.messages == 1
    monkeypatch.setattr(watched_bucket, "MARKER_S", 0.0)

    async def messages() -> int:
        return int((await jetstream.stream_info("KV_svc-tallies")).state.messages)

    async with asyncio.timeout(15):
        while await messages():
            await asyncio.sleep(0.1)
    # Whoever has a copy with the empty value can make the key again.
    assert await there.state.change("k", change=up) == Tally(1)
    assert await here.state.get("k") == Tally(1)


async def test_state_outlives_the_server(jetstream_server: NatsServer) -> None:
    extension = Extension("svc", nats_urls=[jetstream_server.url])
    replica = Replica(extension, extension.state("tallies", Tally))
    async with extension:
        await replica.whole()
        await replica.state.put("k", value=Tally(1))
        first = replica.bucket._watch
        await asyncio.to_thread(jetstream_server.kill)
        await asyncio.to_thread(jetstream_server.start)

        async def write() -> None:
            while True:
                try:
                    await replica.state.change("k", change=up)
                except StateUnavailable:
                    await asyncio.sleep(0.1)
                else:
                    return

        async with asyncio.timeout(30):
            await write()
        tally = await replica.state.get("k")
        assert tally is not None
        assert tally.count >= 2
        await until(
            lambda: replica.bucket._watch is not first and replica.bucket.watch_is_whole, "a new copy", 30.0
        )
        replica.count_reads()
        assert await replica.state.get("k") == tally
        assert replica.reads == 0


@pytest.fixture
def jetstream_server() -> Any:
    """A server of our own, which a test may kill."""
    server = NatsServer(jetstream=True)
    server.start()
    yield server
    server.close()


async def test_values_that_expire_are_read_from_the_server() -> None:
    extension = Extension("svc")
    state = extension.state("tallies", Tally, ttl_s=60.0)
    async with online(extension):
        await state.put("k", value=Tally(1))
        assert await state.get("k") == Tally(1)
        assert isinstance(state._bucket, JetStreamBucket)
