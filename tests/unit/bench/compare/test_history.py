"""The file of instruction counts: what is a rise, and that the one in the repository explains its own."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from kaa_bench.compare import history
from kaa_bench.compare.history import (
    Entry,
    compare_with_history,
    lower,
    read_history,
    risen,
    unexplained,
    write_history,
)
from kaa_bench.compare.instructions import COUNTED, Count, count_of
from kaa_bench.errors import BenchError

RECORDED = Path(__file__).parents[4] / "docs/instructions.json"


def counts_of(rows: dict[str, int]) -> dict[str, Count]:
    return {row: Count(native, 2000) for row, native in rows.items()}


def entry(rows: dict[str, int], why: str = "", built: str = "here") -> Entry:
    return Entry("0000000", "feat: something", "2026-01-01", built, counts_of(rows), why)


def new_entry(rows: dict[str, Count], why: str) -> Entry:
    return Entry("0000000", "feat: something", "2026-01-01", "here", rows, why)


@dataclass
class Counting:
    """What the next run counts, instead of valgrind."""

    rows: dict[str, int]

    def __call__(self) -> dict[str, Count]:
        return counts_of(self.rows)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counts = Counting({})
    monkeypatch.setattr(history, "count_instructions", counts)
    monkeypatch.setattr(history, "current_build", lambda: "here")
    monkeypatch.setattr(history, "new_entry", new_entry)
    return counts


def test_native_instructions_rise_by_more_than_three_percent() -> None:
    before = {"qos0": Count(1000, 2000), "http": Count(1000, 2000), "gone": Count(1, 1)}
    now = {"qos0": Count(1030, 2200), "http": Count(1031, 2300), "new": Count(5, 5)}
    assert list(map(str, risen(before, now))) == [
        "http, native: 1,031 instructions a message instead of 1,000 (+3.1%)",
        "http, all: 2,300 instructions a message instead of 2,000 (+15.0%)",
    ]


def test_the_lower_count_of_two_runs_counts() -> None:
    assert lower({"qos0": Count(1, 9)}, {"qos0": Count(2, 8)}) == {"qos0": Count(1, 8)}


def test_copies_of_memory_are_not_counted() -> None:
    counts = Counter(
        {
            ("libc", "__memcpy_avx_unaligned_erms"): 50,
            ("libc", "malloc"): 30,
            ("uplink", "__pyx_f_11kaa_gateway_2kp_6uplink_forward"): 20,
        }
    )
    assert count_of(counts, 10) == Count(native=2, all=5)


def test_a_rise_is_recorded_only_with_a_reason(tmp_path: Path, counting: Counting) -> None:
    file = tmp_path / "instructions.json"
    write_history(file, [entry({"qos0": 1000})])
    said: list[str] = []
    counting.rows = {"qos0": 1100}
    [change] = compare_with_history(file, record=False, why="", say=said.append)
    assert change.row == "qos0"
    with pytest.raises(BenchError, match="say --why"):
        compare_with_history(file, record=True, why="", say=said.append)
    assert len(read_history(file)) == 1
    assert not compare_with_history(file, record=True, why="it checks more", say=said.append)
    assert [each.rows for each in read_history(file)] == [
        counts_of({"qos0": 1000}),
        counts_of({"qos0": 1100}),
    ]
    assert unexplained(read_history(file)) == []
    assert not compare_with_history(file, record=False, why="", say=said.append)


def test_counts_of_another_build_are_not_compared(tmp_path: Path, counting: Counting) -> None:
    file = tmp_path / "instructions.json"
    write_history(file, [entry({"qos0": 1000}, built="elsewhere")])
    counting.rows = {"qos0": 2000}
    said: list[str] = []
    assert not compare_with_history(file, record=True, why="", say=said.append)
    assert said[0] == "no counts of this build are recorded: here"
    assert unexplained(read_history(file)) == []


def test_an_entry_that_has_risen_and_does_not_say_why_is_found() -> None:
    [(found, change)] = unexplained([entry({"qos0": 1000}), entry({"qos0": 900}), entry({"qos0": 1000})])
    assert (found.rows, change.before) == (counts_of({"qos0": 1000}), 900)


def test_a_file_that_is_not_there_or_not_valid_is_named(tmp_path: Path) -> None:
    file = tmp_path / "instructions.json"
    with pytest.raises(BenchError, match="does not exist"):
        read_history(file)
    file.write_text('[{"commit": 1}]')
    with pytest.raises(BenchError, match=r"instructions\.json: .*`str`"):
        read_history(file)


def test_the_recorded_counts_have_all_rows_and_explain_their_rises() -> None:
    entries = read_history(RECORDED)
    assert set(entries[-1].rows) == set(COUNTED)
    assert [f"{found.commit}: {change}" for found, change in unexplained(entries)] == []
