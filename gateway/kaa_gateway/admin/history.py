"""The last hour of a worker in a few numbers, for the live page: counts and latencies, every quarter of a minute."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kaa_gateway.counters import Histogram, bucket_bounds

if TYPE_CHECKING:
    from kaa_gateway.admin.metrics import Observed

PERIOD = 15
"""Seconds between samples."""
KEPT = 240
"""Samples: those of an hour."""
RATES = ("messagesIn", "messagesOut", "lost")
"""Counts that the history shows as so many a second."""
QUANTILE = 0.99


class History:
    """Samples the counters of a worker. `sample` is to be called every `PERIOD` seconds."""

    def __init__(self, worker: Observed, now: Callable[[], float] = time.time) -> None:
        self._worker = worker
        self._now = now
        self._samples: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._before = self._read()

    def sample(self) -> None:
        """Add what has happened since the last sample."""
        current = self._read()
        earlier, self._before = self._before, current
        seconds = max(current["at"] - earlier["at"], 1e-3)
        self._samples.append(
            {
                # Workers sample at different moments; their samples of the same period belong together.
                "at": int(current["at"]) // PERIOD * PERIOD,
                **{name: round((current[name] - earlier[name]) / seconds, 2) for name in RATES},
                "connections": current["connections"],
                "confirmed": _quantile(current["confirmed"], earlier["confirmed"]),
                "answered": _quantile(current["answered"], earlier["answered"]),
                "natsUp": self._worker.link.ready,
            }
        )

    def samples(self) -> list[dict[str, Any]]:
        """Return the samples, oldest first."""
        return list(self._samples)

    def _read(self) -> dict[str, Any]:
        worker = self._worker
        totals = {name: sum(values.values()) for name, values in worker.counters.by_version().items()}
        by_protocol = worker.counters.by_protocol()
        opened, closed = (
            sum(by_protocol[name].values()) for name in ("connections_opened", "connections_closed")
        )
        return {
            "at": self._now(),
            "messagesIn": totals["messages_in"],
            "messagesOut": totals["messages_out"],
            "lost": sum(
                count
                for (event, _), count in list(worker.counters.by_reason().items())
                if event in ("refused", "dropped")
            ),
            "connections": opened - closed,
            "confirmed": _counts([worker.link.confirmation]),
            "answered": _counts(table.latency for table in worker.pending.values()),
        }


def merged(histories: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the history of several workers together: sums, and the longest latencies."""
    by_time: dict[int, dict[str, Any]] = {}
    for samples in histories:
        for sample in samples:
            joined = by_time.get(sample["at"])
            if joined is None:
                by_time[sample["at"]] = dict(sample)
                continue
            for name in (*RATES, "connections"):
                joined[name] = round(joined[name] + sample[name], 2)
            for name in ("confirmed", "answered"):
                known = [value for value in (joined[name], sample[name]) if value is not None]
                joined[name] = max(known, default=None)
            joined["natsUp"] = joined["natsUp"] and sample["natsUp"]
    return [by_time[at] for at in sorted(by_time)][-KEPT:]


def _counts(histograms: Iterable[Histogram]) -> list[int]:
    """Return the counts of histograms by bucket, added up."""
    return [sum(counts) for counts in zip(*(each.snapshot()[0] for each in histograms), strict=True)]


def _quantile(counts: list[int], earlier: list[int]) -> float | None:
    """Return the upper bound, in seconds, of the bucket with the quantile of what has come since; None of nothing."""
    new = [now - before for now, before in zip(counts, earlier or [0] * len(counts), strict=True)]
    rank = math.ceil(sum(new) * QUANTILE)
    if rank == 0:
        return None
    # What is above the last bound is shown as the last bound.
    for bound, count in zip(bucket_bounds(), new, strict=False):
        rank -= count
        if rank <= 0:
            return float(bound)
    return float(bucket_bounds()[-1])
