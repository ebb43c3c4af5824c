"""The replay window, compared with a set of all counters.

Source: RFC 6479; docs/kp-over-udp-secure.md, "Replay".
"""

import random

import pytest
from kaa_gateway.kpudp.replay_window import ReplayWindow

WINDOW = 448
COUNTER_MAX = 0xFFFFFFFF


def test_each_counter_is_new_once() -> None:
    window = ReplayWindow()
    for counter in (0, 1, 5, 3, COUNTER_MAX - 1000, COUNTER_MAX):
        assert window.is_new(counter)
        window.add(counter)
        assert not window.is_new(counter)
    assert window.newest == COUNTER_MAX


@pytest.mark.parametrize("step", [1, 7, 63, 64, 65, 500, 600, 100_000])
def test_against_a_set(step: int) -> None:
    generator = random.Random(step)
    window, seen, newest = ReplayWindow(), set[int](), -1
    for _ in range(4000):
        counter = max(newest + generator.randint(-WINDOW, step), 0)
        is_new = window.is_new(counter)
        if newest - counter <= WINDOW:
            assert is_new == (counter not in seen)
        elif counter in seen:
            assert not is_new
        if is_new:
            assert window.add(counter) == (counter > newest)
            seen.add(counter)
            newest = max(newest, counter)


def test_what_is_older_than_the_window_counts_as_received() -> None:
    window = ReplayWindow()
    window.add(10_000)
    assert window.is_new(10_000 - WINDOW)
    assert not window.is_new(10_000 - WINDOW - 64)


def test_it_can_start_again() -> None:
    window = ReplayWindow()
    window.add(9)
    window.restart()
    assert window.newest == -1
    assert window.is_new(9)
