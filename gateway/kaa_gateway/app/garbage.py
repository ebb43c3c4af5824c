"""Python's garbage collector in a worker: it must not stop the event loop for long, and all garbage must go in the end.

A full collection visits every object: half a second with the million objects of 200,000 endpoints. Sessions, endpoints
and connections are freed by their reference counts; the collector is for cycles that something else has left behind. So
young objects are collected as they come, and all of them only while there are few, or when more memory is used than the
growth of the worker's tables explains.
"""

from __future__ import annotations

import gc
import sys
import time
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

YOUNG = 2_000
"""New objects between two collections of the youngest generation: a millisecond."""
YOUNG_PER_MIDDLE = 5
"""A collection of the middle generation visits some 10,000 objects, which takes some milliseconds."""
NEVER = 1_000_000_000
COLLECT_PERIOD = 600.0
"""Seconds between looks whether a full collection is due."""
FEW_ENTRIES = 5_000
"""Endpoints and sessions of a worker up to which a full collection is short."""
BLOCKS_PER_ENTRY = 50
"""Blocks of memory that an endpoint or a session takes, at most."""
UNEXPLAINED_MAX = 500_000
"""Blocks of memory that may have come without entries, before it must be found out whether they are garbage: 50 MB."""


class GarbageCollection(Collector):
    """Decides about collections of this process, and has metrics of them."""

    def __init__(self) -> None:
        self._collections = [0, 0, 0]
        self._freed = 0
        self._paused = 0.0
        self._longest = 0.0
        self._began = 0.0
        self._blocks = 0
        self._entries = 0

    def begin(self) -> None:
        """Let Python start no full collection by itself, and measure. What there is now is never looked at again."""
        self._collect(0)
        gc.freeze()
        gc.set_threshold(YOUNG, YOUNG_PER_MIDDLE, NEVER)
        gc.callbacks.append(self._note)

    def end(self) -> None:
        """Measure no more."""
        if self._note in gc.callbacks:
            gc.callbacks.remove(self._note)

    def collect_if_due(self, entries: int) -> None:
        """Collect all garbage if that is short, or if there seems to be much. `entries` are endpoints and sessions."""
        explained = max(entries - self._entries, 0) * BLOCKS_PER_ENTRY + UNEXPLAINED_MAX
        if entries <= FEW_ENTRIES or sys.getallocatedblocks() > self._blocks + explained:
            self._collect(entries)

    def _collect(self, entries: int) -> None:
        gc.collect()
        self._blocks = sys.getallocatedblocks()
        self._entries = entries

    def _note(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
            return
        pause = time.perf_counter() - self._began
        self._collections[info["generation"]] += 1
        self._freed += info["collected"]
        self._paused += pause
        self._longest = max(self._longest, pause)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        collections = CounterMetricFamily(
            "kaa_gateway_garbage_collections", "Runs of Python's garbage collector.", labels=["generation"]
        )
        for generation, count in enumerate(self._collections):
            collections.add_metric([str(generation)], count)
        yield collections
        yield CounterMetricFamily(
            "kaa_gateway_garbage_objects", "Objects in cycles that it has freed.", value=self._freed
        )
        yield CounterMetricFamily(
            "kaa_gateway_garbage_pause_seconds",
            "Time for which it has stopped the worker.",
            value=self._paused,
        )
        yield GaugeMetricFamily(
            "kaa_gateway_garbage_longest_pause_seconds", "Its longest run so far.", value=self._longest
        )
