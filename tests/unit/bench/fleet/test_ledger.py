"""The ledger of a fleet soak counts like sets do."""

from hypothesis import given
from hypothesis import strategies as st
from kaa_bench.fleet.ledger import Ledger, records

MESSAGES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 300)))


def ledger_of(messages: list[tuple[int, int]]) -> Ledger:
    ledger = Ledger()
    ledger.read(records(messages) + b"\x00\x01")
    return ledger


@given(MESSAGES, MESSAGES)
def test_it_is_a_set(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    a, b = ledger_of(first), ledger_of(second)
    assert len(a) == len(set(first))
    assert a.without(b) == len(set(first) - set(second))


def test_a_message_is_added_once() -> None:
    ledger = Ledger()
    assert [ledger.add(1, 7), ledger.add(1, 7), ledger.add(2, 7), ledger.add(1, 8)] == [
        True,
        False,
        True,
        True,
    ]
