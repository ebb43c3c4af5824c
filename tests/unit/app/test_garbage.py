"""Python's garbage collector in a worker: when all garbage is collected, and what is measured."""

import gc
import sys
import weakref
from collections.abc import Iterator

import pytest
from kaa_gateway.app import garbage
from kaa_gateway.app.garbage import BLOCKS_PER_ENTRY, FEW_ENTRIES, UNEXPLAINED_MAX, GarbageCollection

MANY = FEW_ENTRIES + 1


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def collection() -> Iterator[GarbageCollection]:
    thresholds = gc.get_threshold()
    gc.disable()
    found = GarbageCollection()
    found.begin()
    yield found
    found.end()
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.enable()


def old_garbage() -> weakref.ref[Cycle]:
    """Return what collections of young objects do not find any more."""
    cycle = Cycle()
    gc.collect(1)
    return weakref.ref(cycle)


def value(collection: GarbageCollection, name: str, **labels: str) -> float:
    return next(
        sample.value
        for family in collection.collect()
        for sample in family.samples
        if sample.name == f"kaa_gateway_garbage_{name}" and sample.labels == labels
    )


def test_all_garbage_goes_while_there_are_few_entries(collection: GarbageCollection) -> None:
    left = old_garbage()
    collection.collect_if_due(FEW_ENTRIES)
    assert left() is None


def test_with_many_entries_it_goes_when_memory_has_grown_without_them(
    collection: GarbageCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = 1_000_000
    monkeypatch.setattr(sys, "getallocatedblocks", lambda: blocks)
    collection.collect_if_due(FEW_ENTRIES)
    left = old_garbage()
    blocks += BLOCKS_PER_ENTRY + UNEXPLAINED_MAX
    collection.collect_if_due(MANY)
    assert left() is not None
    blocks += 1
    collection.collect_if_due(MANY)
    assert left() is None
    # What is there after a collection is explained.
    again = old_garbage()
    collection.collect_if_due(MANY)
    assert again() is not None


def test_a_million_garbage_objects_are_too_many(collection: GarbageCollection) -> None:
    left = old_garbage()
    cycles = [Cycle() for _ in range(UNEXPLAINED_MAX)]
    gc.collect(1)
    del cycles
    collection.collect_if_due(100 * MANY)
    assert left() is not None
    collection.collect_if_due(MANY)
    assert left() is None


def test_python_starts_no_full_collection(collection: GarbageCollection) -> None:
    assert gc.get_threshold() == (garbage.YOUNG, garbage.YOUNG_PER_MIDDLE, garbage.NEVER)


def test_collections_are_counted_and_timed(collection: GarbageCollection) -> None:
    left = old_garbage()
    gc.collect()
    assert left() is None
    assert value(collection, "collections_total", generation="1") == 1
    assert value(collection, "collections_total", generation="2") == 1
    assert value(collection, "objects_total") >= 1
    assert 0 < value(collection, "longest_pause_seconds") <= value(collection, "pause_seconds_total")
    collection.end()
    gc.collect()
    assert value(collection, "collections_total", generation="2") == 1
