"""Stages: a ramp, a step and a spike."""

import pytest
from kaa_bench.sim.stages import Stage, rate_at
from kaa_bench.sim.values import Duration


def stages(*pairs: tuple[float, float]) -> tuple[Stage, ...]:
    return tuple(Stage(duration=Duration(duration), rate=rate) for duration, rate in pairs)


@pytest.mark.parametrize(
    ("given", "at", "rate"),
    [
        ((), 5, 1),
        (((10, 3),), 0, 1),
        (((10, 3),), 5, 2),
        (((10, 3),), 10, 3),
        (((10, 3),), 99, 3),
        (((10, 1), (0, 4)), 9.9, 1),
        (((10, 1), (0, 4)), 10, 4),
        (((10, 1), (0, 4), (5, 4), (0, 1)), 14, 4),
        (((10, 1), (0, 4), (5, 4), (0, 1)), 15, 1),
        (((10, 2), (10, 1)), 15, 1.5),
    ],
)
def test_the_rate_at_a_time(given: tuple[tuple[float, float], ...], at: float, rate: float) -> None:
    assert rate_at(stages(*given), at) == pytest.approx(rate)
