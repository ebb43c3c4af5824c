"""The gateway's instructions a message beside the recorded counts; docs/performance.md says how a rise is recorded."""

import shutil
from pathlib import Path

import pytest
from kaa_bench.compare.history import current_build, last_of, lower, read_history, risen
from kaa_bench.compare.instructions import count_instructions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed"),
]
RECORDED = Path(__file__).parents[3] / "docs/instructions.json"


def test_no_row_needs_more_instructions_than_recorded() -> None:
    recorded = last_of(read_history(RECORDED), current_build())
    if recorded is None:
        pytest.skip(f"no counts are recorded for this build: {current_build()}")
    counts = count_instructions()
    if risen(recorded.rows, counts):  # a busy machine adds to a count; a real rise is there again
        counts = lower(counts, count_instructions())
    up = risen(recorded.rows, counts)
    assert not up, "find out why, or: kaa-bench history --record --why '...'\n" + "\n".join(map(str, up))
