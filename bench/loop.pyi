"""What every load has in common. See loop.pyx."""

from typing import NamedTuple

FAILURES: tuple[str, ...]

class RunResult(NamedTuple):
    sent: int
    acknowledged: int
    errors: dict[str, int]
    seconds: float
    cpu_seconds: float
    retransmitted: int

class Load:
    def run(
        self, *, messages: int | None = None, seconds: float | None = None, stall_timeout: float
    ) -> RunResult: ...
    def close(self) -> None: ...
