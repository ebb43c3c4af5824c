"""Stages of load: how the rate of a fleet changes over time (ramp, step, spike)."""

from typing import Annotated

from msgspec import Meta

from kaa_bench.sim.values import Duration, Strict


class Stage(Strict, frozen=True, kw_only=True):
    """A time in which the rate changes evenly to `rate`; one of no duration changes it at once.

    A rate is a multiple of one message each interval.
    """

    duration: Duration
    rate: Annotated[float, Meta(ge=0.001, le=1000)]


def rate_at(stages: tuple[Stage, ...], elapsed: float) -> float:
    """Return the rate at a time since the start. It begins with 1; the last stage's rate stays."""
    rate = 1.0
    for stage in stages:
        if elapsed < stage.duration:
            return rate + (stage.rate - rate) * elapsed / stage.duration
        elapsed -= stage.duration
        rate = stage.rate
    return rate
