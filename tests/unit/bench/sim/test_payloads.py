"""What simulated devices measure."""

import random
from itertools import pairwise

import msgspec
import pytest
from kaa_bench.sim.payloads import Choice, Constant, Counter, Samples, Timestamp, Track, Value, Walk


def chance() -> random.Random:
    return random.Random(1)


def test_a_walk_takes_small_steps_and_stays_between_its_bounds() -> None:
    source = Walk(start=10, step=2, low=8, high=12, digits=1).source(chance())
    values = [10.0, *(source.next(1) for _ in range(500))]
    assert min(values) == 8
    assert max(values) == 12
    assert all(abs(after - before) <= 2.05 for before, after in pairwise(values))


def test_a_track_moves_at_its_speed() -> None:
    source = Track(latitude=50, longitude=30, speed=10).source(chance())
    before = source.next(1)
    for _ in range(100):
        after = source.next(1)
        north = (after["latitude"] - before["latitude"]) * 111_320
        east = (after["longitude"] - before["longitude"]) * 111_320 * 0.6428
        assert (north**2 + east**2) ** 0.5 == pytest.approx(10, rel=0.05)
        before = after


def test_a_track_goes_around_the_earth() -> None:
    source = Track(latitude=89, longitude=179.9, speed=5000).source(chance())
    for _ in range(200):
        position = source.next(60)
        assert -89 <= position["latitude"] <= 89
        assert -180 <= position["longitude"] <= 180


def test_a_message_is_a_sample_or_a_batch_of_them() -> None:
    values: dict[str, Value] = {
        "count": Counter(),
        "state": Choice(("on", "off")),
        "model": Constant({"version": 2}),
        "time": Timestamp(),
    }
    one = msgspec.json.decode(Samples(values, 1, 10, chance()).message())
    assert one["count"] == 0
    assert one["state"] in ("on", "off")
    assert one["model"] == {"version": 2}
    assert one["time"] > 1_600_000_000_000
    many = Samples(values, 3, 10, chance())
    assert [sample["count"] for sample in msgspec.json.decode(many.message())] == [0, 1, 2]
    assert [sample["count"] for sample in msgspec.json.decode(many.message())] == [3, 4, 5]


def test_a_device_with_the_same_seed_measures_the_same() -> None:
    values: dict[str, Value] = {"x": Walk(start=0, step=1), "at": Track(latitude=1, longitude=1)}
    assert Samples(values, 5, 1, chance()).message() == Samples(values, 5, 1, chance()).message()
