"""State in memory: keys as NATS takes them, and atomic changes. tests/e2e/ext/test_state.py has it in JetStream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_ext import Extension, State
from kaa_ext.sdk.state import escaped, unescaped
from kaa_ext.testing import offline, until
from nats.js.kv import VALID_KEY_RE

Where = Callable[..., AbstractAsyncContextManager[Any]]


class Tally(msgspec.Struct):
    count: int = 0


@given(st.text())
def test_any_text_is_a_part_of_a_key(text: str) -> None:
    assert VALID_KEY_RE.match(escaped(text))
    assert "." not in escaped(text)
    assert unescaped(escaped(text)) == text


@pytest.mark.parametrize(
    ("part", "key"),
    [("my-device_1", "my-device_1"), ("a.b", "a=2Eb"), ("=", "=3D"), ("", "="), ("ä/*", "=C3=A4=2F=2A")],
)
def test_escaped_parts(part: str, key: str) -> None:
    assert escaped(part) == key


@pytest.fixture
async def tallies() -> AsyncIterator[list[State[Tally]]]:
    """The same state, as two replicas see it."""
    replicas = [Extension("svc") for _ in range(2)]
    states = [replica.state("tallies", Tally) for replica in replicas]
    async with offline(*replicas):
        yield states


async def test_values_by_key(tallies: list[State[Tally]]) -> None:
    here, there = tallies
    assert await here.get("a", "b") is None
    await here.put("a", "b", value=Tally(1))
    await here.put("a.b", value=Tally(2))
    assert await there.get("a", "b") == Tally(1)
    assert {key: value.count async for key, value in there.entries()} == {("a", "b"): 1, ("a.b",): 2}
    await here.put("a", "c", value=Tally(3))
    first = await there.page("a", start=0, limit=1)
    assert first.entries == [(("a", "b"), Tally(1))]
    assert first.next is not None
    assert await there.page("a", start=first.next, limit=1) == ([(("a", "c"), Tally(3))], None)
    await here.change("a", "c", change=lambda tally: None)
    assert (await there.page("a", start=first.next, limit=1)).entries == []
    assert await there.change("a", "b", change=lambda tally: None) is None
    assert await here.get("a", "b") is None
    assert [key async for key, _ in here.entries()] == [("a.b",)]
    assert await here.change("a", "b", change=lambda tally: Tally(7)) == Tally(7)


async def test_changes_of_two_replicas_are_all_there(tallies: list[State[Tally]]) -> None:
    """Each change takes what the one before it has left, deletions among them."""

    def up(tally: Tally | None) -> Tally:
        return Tally((tally or Tally()).count + 1)

    def down(tally: Tally | None) -> Tally | None:
        count = (tally or Tally()).count - 1
        return Tally(count) if count else None

    for _ in range(10):
        await asyncio.gather(*(state.change("k", change=up) for state in tallies for _ in range(2)))
        await asyncio.gather(
            *(state.change("k", change=down) for state in tallies), tallies[0].change("k", change=up)
        )
    assert await tallies[1].get("k") == Tally(30)


async def test_a_change_that_raises_changes_nothing(tallies: list[State[Tally]]) -> None:
    def refuse(tally: Tally | None) -> Tally:
        raise KeyError

    await tallies[0].put("k", value=Tally(1))
    with pytest.raises(KeyError):
        await tallies[0].change("k", change=refuse)
    assert await tallies[0].get("k") == Tally(1)


def test_a_state_is_declared_once() -> None:
    extension = Extension("svc")
    extension.state("a", Tally)
    with pytest.raises(ValueError, match="twice"):
        extension.state("a", Tally)
    with pytest.raises(ValueError, match="state name"):
        extension.state("a.b", Tally)


@pytest.fixture
def where() -> Where:
    """The way to run extensions."""
    return offline


async def test_each_replica_is_told_of_changes(where: Where) -> None:
    changes: list[list[tuple[tuple[str, ...], int]]] = [[], []]

    def listener(to: list[tuple[tuple[str, ...], int]]) -> Callable[[tuple[str, ...], Tally], None]:
        return lambda key, tally: to.append((key, tally.count))

    replicas = [Extension("svc") for _ in changes]
    here, _ = (
        replica.state("tallies", Tally, changed=listener(to))
        for replica, to in zip(replicas, changes, strict=True)
    )
    async with where(*replicas):
        await here.put("a.b", "", value=Tally(1))
        await here.change("a.b", "", change=lambda tally: None)
        await here.put("c", value=Tally(2))
        await until(lambda: all(len(each) == 2 for each in changes), "the changes")
    assert changes == [[(("a.b", ""), 1), (("c",), 2)]] * 2
