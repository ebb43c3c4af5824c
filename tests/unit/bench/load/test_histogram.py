"""The histogram beside HdrHistogram's own, and at its bounds."""

import pickle
import random

import pytest
from hdrh.histogram import HdrHistogram
from kaa_bench.load.histogram import VALUE_MAX, Histogram

PERCENTILES = (0, 1, 10, 25, 50, 75, 90, 99, 99.9, 99.99, 100)


def values(seed: int) -> list[int]:
    """Latencies over eight decades, and the borders of buckets."""
    chosen = random.Random(seed)
    drawn = [min(VALUE_MAX, int(chosen.lognormvariate(13, 3)) + 1) for _ in range(5000)]
    return drawn + [(1 << bit) + offset for bit in range(1, 36) for offset in (-1, 0, 1)]


@pytest.mark.parametrize("seed", range(3))
def test_percentiles_are_those_of_hdrhistogram(seed: int) -> None:
    ours, theirs = Histogram(), HdrHistogram(1, VALUE_MAX, 3)
    for value in values(seed):
        ours.record(value)
        theirs.record_value(value)
    assert ours.total == theirs.get_total_count()
    assert [ours.percentile(percent) for percent in PERCENTILES] == [
        theirs.get_value_at_percentile(percent) for percent in PERCENTILES
    ]


def test_mean_and_highest_are_exact() -> None:
    histogram = Histogram()
    for value in (1_000_003, 3_000_001):
        histogram.record(value)
    assert histogram.mean == 2_000_002
    assert histogram.highest == 3_000_001


def test_values_out_of_range_count_as_the_nearest() -> None:
    histogram = Histogram()
    histogram.record(-5)
    histogram.record(10**15)
    assert histogram.total == 2
    assert (histogram.percentile(0), histogram.percentile(100)) == (0, VALUE_MAX)
    assert histogram.highest == VALUE_MAX


def test_an_empty_one_says_0() -> None:
    histogram = Histogram()
    assert (histogram.total, histogram.mean, histogram.percentile(50)) == (0, 0.0, 0)


def test_two_merged_are_as_one_and_a_copy_over_a_pipe_is_the_same() -> None:
    first, second, both = Histogram(), Histogram(), Histogram()
    for number, value in enumerate(values(7)):
        (first if number % 2 else second).record(value)
        both.record(value)
    first.merge(pickle.loads(pickle.dumps(second)))
    assert first.buckets() == both.buckets()
    assert (first.total, first.highest, first.mean) == (both.total, both.highest, both.mean)


def test_what_came_after_a_copy_is_counted_by_itself() -> None:
    histogram = Histogram()
    histogram.record(1000)
    before = histogram.copy()
    for value in (5000, 7000):
        histogram.record(value)
    recent = histogram.since(before)
    assert (before.total, recent.total, recent.mean) == (1, 2, 6000)
    assert recent.percentile(50) == histogram.percentile(66)
    assert recent.highest == recent.percentile(100)
