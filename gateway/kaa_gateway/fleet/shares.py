"""How much of a rate that all replicas share is a worker's own.

All workers compute this from the same demands, so that their shares make up the whole. While the demands are within the
rate, each has its demand and an equal part of what is left. Beyond that, shares are in proportion to the demands, but
for a small part that is shared equally, so that a worker whose devices were silent does not begin with nothing.
"""

from __future__ import annotations

from collections.abc import Collection

EQUAL_PART = 0.04
"""The part of a rate that is shared equally while the demands are beyond it. That of silent workers is unused."""
SHARE_MIN = 1e-6


def share_of(rate: float, own: float, others: Collection[float], workers: int) -> float:
    """Return a worker's part of a rate, from 0 to 1. `workers` counts those that may have demands, with this one."""
    workers = max(workers, 1 + len(others))
    demand = own + sum(others)
    if rate <= 0:
        return 1.0
    if demand <= rate:
        share = (own + (rate - demand) / workers) / rate
    else:
        share = EQUAL_PART / workers + (1 - EQUAL_PART) * own / demand
    return min(max(share, SHARE_MIN), 1.0)
