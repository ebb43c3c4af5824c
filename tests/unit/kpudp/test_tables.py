"""The duplicate window of KP over UDP, against a set of everything ever seen.

Source: docs/kp-over-udp.md, "Duplicates".
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_gateway.kpudp.tables import DuplicateWindow

NEW, UNANSWERED, ANSWERED, OUTDATED = range(4)
WINDOW = 1024


def test_an_id_is_unanswered_then_answered_then_outdated() -> None:
    window = DuplicateWindow()
    assert window.look_up(7) == NEW
    window.add(7)
    assert window.look_up(7) == UNANSWERED
    window.mark_answered(7)
    assert window.look_up(7) == ANSWERED
    window.add(7 + WINDOW - 1)
    assert window.look_up(7) == ANSWERED
    window.add(7 + WINDOW)
    assert window.look_up(7) == OUTDATED


def test_an_id_not_received_within_the_window_is_new() -> None:
    window = DuplicateWindow()
    window.add(10)
    assert window.look_up(9) == NEW
    window.add(9)
    assert window.look_up(9) == UNANSWERED
    assert window.look_up(11) == NEW


def test_a_removed_id_is_new() -> None:
    window = DuplicateWindow()
    window.add(10)
    window.mark_answered(10)
    window.remove(10)
    assert window.look_up(10) == NEW


@pytest.mark.parametrize("newest", [WINDOW - 1, 5000, 0xFFFF, 3])
def test_removing_an_id_changes_no_other(newest: int) -> None:
    """All 65536 IDs; each shares its bit with one of the window."""
    window = DuplicateWindow()
    inside = [(newest - age) & 0xFFFF for age in reversed(range(WINDOW))]
    expected = {}
    for message_id in inside:
        window.add(message_id)
        expected[message_id] = UNANSWERED
        if message_id % 3 == 0:
            window.mark_answered(message_id)
            expected[message_id] = ANSWERED
    by_bit = {message_id % WINDOW: message_id for message_id in inside}
    for message_id in range(0x10000):
        if message_id not in expected:
            window.remove(message_id)
            same_bit = by_bit[message_id % WINDOW]
            assert window.look_up(same_bit) == expected[same_bit]
    for message_id in inside:
        window.remove(message_id)
        assert window.look_up(message_id) == NEW


def test_an_answer_after_the_window_has_passed_marks_nothing() -> None:
    window = DuplicateWindow()
    window.add(0)
    window.add(WINDOW)  # the same bit
    window.mark_answered(0)
    assert window.look_up(WINDOW) == UNANSWERED


def test_ids_come_round() -> None:
    window = DuplicateWindow()
    for count in range(3 * 65536):
        message_id = count & 0xFFFF
        assert window.look_up(message_id) == NEW
        window.add(message_id)
        assert window.look_up(message_id) == UNANSWERED
        assert window.look_up((message_id - WINDOW // 2) & 0xFFFF) == (
            UNANSWERED if count >= WINDOW // 2 else NEW
        )


@given(start=st.integers(0, 0xFFFF), steps=st.lists(st.integers(-1500, 3000), max_size=60))
def test_the_window_agrees_with_a_set(start: int, steps: list[int]) -> None:
    window = DuplicateWindow()
    seen: set[int] = set()
    newest = position = start
    for step in [0, *steps]:
        position = max(position + step, 0)
        if seen and abs(position - newest) >= 32768:
            continue
        newest_before = newest if seen else position
        expected = UNANSWERED if position in seen else NEW
        if position <= newest_before - WINDOW:
            expected = OUTDATED
        assert window.look_up(position & 0xFFFF) == expected
        if expected == NEW:
            window.add(position & 0xFFFF)
            seen.add(position)
            newest = max(newest_before, position)
