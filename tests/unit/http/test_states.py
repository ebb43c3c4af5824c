"""The states of an HTTP connection: which may follow which."""

import pytest
from kaa_gateway.http.states import TRANSITIONS

SERVING = {"reading", "continue due", "pipeline full", "authenticating"}


def reachable(state: str) -> set[str]:
    """The states that may come after this one, sooner or later."""
    found: set[str] = set()
    ahead = set(TRANSITIONS[state])
    while ahead:
        found |= ahead
        ahead = {following for each in ahead for following in TRANSITIONS[each]} - found
    return found


def test_each_state_can_be_reached_and_all_end_in_closed() -> None:
    assert reachable("reading") == set(TRANSITIONS)
    for state in TRANSITIONS.keys() - {"closed"}:
        assert "closed" in TRANSITIONS[state], "the peer may be gone at any time"
    assert TRANSITIONS["closed"] == frozenset()


@pytest.mark.parametrize("state", sorted(TRANSITIONS.keys() - SERVING))
def test_a_connection_that_ends_reads_nothing_again(state: str) -> None:
    assert reachable(state) & SERVING == set()


@pytest.mark.parametrize("state", sorted(SERVING - {"reading"}))
def test_each_wait_ends_with_reading(state: str) -> None:
    assert "reading" in TRANSITIONS[state]


def test_only_a_refusal_lingers() -> None:
    assert {state for state, following in TRANSITIONS.items() if "lingering" in following} == {"refusing"}
