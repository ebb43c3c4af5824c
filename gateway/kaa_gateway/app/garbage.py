"""Python's garbage collector in a worker: a full collection must not stop the event loop.

It visits every object: half a second with the million objects of 200,000 endpoints. Sessions, endpoints and connections
are freed by their reference counts; the collector is for cycles that something else has left behind. So young objects
are collected as they come, and all of them only while there are few.
"""

import gc

YOUNG = 2_000
"""New objects between two collections of the youngest generation: a millisecond."""
YOUNG_PER_MIDDLE = 10
NEVER = 1_000_000_000
COLLECT_PERIOD = 600.0
"""Seconds between full collections."""
FEW_ENDPOINTS = 5_000
"""Endpoints and sessions of a worker up to which a full collection is short."""


def avoid_full_collections() -> None:
    """Let Python start no full collection by itself. What there is now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, YOUNG_PER_MIDDLE, NEVER)


def collect_if_few(endpoints_and_sessions: int) -> None:
    """Collect all garbage if that is short."""
    if endpoints_and_sessions <= FEW_ENDPOINTS:
        gc.collect()
