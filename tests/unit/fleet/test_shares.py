"""The shares of a rate: they make up the whole, whatever the demands are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_gateway.fleet.shares import EQUAL_PART, share_of

DEMANDS = st.lists(st.floats(0, 1e7), min_size=1, max_size=20)


def shares(rate: float, demands: list[float]) -> list[float]:
    """What each of the workers with these demands takes."""
    return [
        share_of(rate, demands[i], demands[:i] + demands[i + 1 :], len(demands)) for i in range(len(demands))
    ]


@given(rate=st.floats(1, 1e8), demands=DEMANDS)
def test_shares_make_up_the_whole(rate: float, demands: list[float]) -> None:
    taken = shares(rate, demands)
    assert sum(taken) == pytest.approx(1, rel=1e-4)
    assert all(0 < share <= 1 for share in taken)


@given(rate=st.floats(1, 1e8), demands=DEMANDS)
def test_demands_within_the_rate_are_met(rate: float, demands: list[float]) -> None:
    if sum(demands) <= rate:
        for demand, share in zip(demands, shares(rate, demands), strict=True):
            assert share * rate >= demand * 0.999


def test_beyond_the_rate_shares_are_in_proportion_and_nobody_has_nothing() -> None:
    taken = shares(100, [300.0, 100.0, 0.0, 0.0])
    equal = EQUAL_PART / 4
    assert taken == pytest.approx([0.72 + equal, 0.24 + equal, equal, equal])
    # What silent workers leave unused is less than the tolerance of 5 %.
    assert sum(taken[:2]) > 0.95


def test_one_alone_has_all_of_it() -> None:
    assert share_of(100, 1e6, [], 1) == 1
    assert share_of(100, 0, [], 1) == 1


def test_workers_of_the_same_process_count_before_they_are_heard() -> None:
    assert share_of(100, 0, [], 4) == pytest.approx(0.25)


def test_no_rate_needs_no_share() -> None:
    assert share_of(0, 50, [50], 2) == 1
