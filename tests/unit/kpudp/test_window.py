"""The duplicate window of KP over UDP, against a set of everything ever seen.

Source: docs/kp-over-udp.md, "Duplicates".
"""

from hypothesis import given
from hypothesis import strategies as st
from kaa_gateway.kpudp.window import DuplicateWindow

UNSEEN, SEEN, ANSWERED, OUTDATED = range(4)
WINDOW = 1024


def test_an_id_is_seen_then_answered_then_outdated() -> None:
    window = DuplicateWindow()
    assert window.look(7) == UNSEEN
    window.see(7)
    assert window.look(7) == SEEN
    window.answer(7)
    assert window.look(7) == ANSWERED
    window.see(7 + WINDOW - 1)
    assert window.look(7) == ANSWERED
    window.see(7 + WINDOW)
    assert window.look(7) == OUTDATED


def test_an_id_not_seen_within_the_window_is_unseen() -> None:
    window = DuplicateWindow()
    window.see(10)
    assert window.look(9) == UNSEEN
    window.see(9)
    assert window.look(9) == SEEN
    assert window.look(11) == UNSEEN


def test_what_is_forgotten_is_unseen() -> None:
    window = DuplicateWindow()
    window.see(10)
    window.answer(10)
    window.forget(10)
    assert window.look(10) == UNSEEN


def test_an_answer_after_the_window_has_passed_marks_nothing() -> None:
    window = DuplicateWindow()
    window.see(0)
    window.see(WINDOW)  # the same bit
    window.answer(0)
    assert window.look(WINDOW) == SEEN


def test_ids_come_round() -> None:
    window = DuplicateWindow()
    for count in range(3 * 65536):
        message_id = count & 0xFFFF
        assert window.look(message_id) == UNSEEN
        window.see(message_id)
        assert window.look(message_id) == SEEN
        assert window.look((message_id - WINDOW // 2) & 0xFFFF) == (SEEN if count >= WINDOW // 2 else UNSEEN)


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
        expected = SEEN if position in seen else UNSEEN
        if position <= newest_before - WINDOW:
            expected = OUTDATED
        assert window.look(position & 0xFFFF) == expected
        if expected == UNSEEN:
            window.see(position & 0xFFFF)
            seen.add(position)
            newest = max(newest_before, position)
