"""The event loop of every load. See loop.pyx."""

from typing import NamedTuple

from kaa_bench.load.histogram import Histogram

FAILURES: tuple[str, ...]

class RunResult(NamedTuple):
    sent: int
    acknowledged: int
    errors: dict[str, int]
    seconds: float
    cpu_seconds: float
    retransmitted: int
    planned: int = 0
    late: int = 0
    held: int = 0
    latency: Histogram | None = None

class Load:
    def run(
        self,
        *,
        messages: int | None = None,
        seconds: float | None = None,
        rate: float = 0,
        stall_timeout: float,
    ) -> RunResult: ...
    def progress(self) -> tuple[int, int]: ...
    def close(self) -> None: ...
