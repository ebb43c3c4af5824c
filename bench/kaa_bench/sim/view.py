"""Shows a run: a live table on a terminal, else a line from time to time."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kaa_bench.sim.run import Result
from kaa_bench.sim.tally import Tally

LINE_PERIOD_S = 10.0
ERROR_KINDS_MAX = 8
PERCENTILES = (50.0, 99.0, 99.9)


class View(AbstractContextManager["View"]):
    """Shows results as they arrive. A run calls `show`."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(None), TimeRemainingColumn(), console=console
        )
        self._task = self._progress.add_task("running", total=seconds)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._next_line = 0.0
        self.show: Callable[[Result], None] = self._redraw if console.is_terminal else self._print_line

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _redraw(self, result: Result) -> None:
        self._progress.update(self._task, completed=result.elapsed)
        self._live.update(Group(self._progress, table(result), errors(result)), refresh=True)

    def _print_line(self, result: Result) -> None:
        if result.elapsed < self._next_line:
            return
        self._next_line += LINE_PERIOD_S
        total = result.total
        rate = result.seconds[-1].acknowledged_rate if result.seconds else 0.0
        self._console.print(
            f"{result.elapsed:6.0f} s  {total.connected:,} connected  {total.sent:,} sent  "
            f"{total.acknowledged:,} acknowledged  {rate:,.0f}/s  p99 {milliseconds(total, 99.0)} ms  "
            f"{total.errors.total():,} errors",
            highlight=False,
            soft_wrap=True,
        )


def table(result: Result) -> Table:
    """Return a table with a line for each fleet, and one for all."""
    shown = Table(box=None, padding=(0, 1, 0, 0))
    shown.add_column("fleet", no_wrap=True)
    for column in ("devices", "online", "sent", "done", "pushed", "errors"):
        shown.add_column(column, justify="right", no_wrap=True)
    for percent in PERCENTILES:
        shown.add_column(f"p{percent:g} ms", justify="right", no_wrap=True)
    for fleet in result.scenario.fleets:
        shown.add_row(fleet.name, *_cells(fleet.devices, result.tallies[fleet.name]))
    if len(result.scenario.fleets) > 1:
        shown.add_row("all", *_cells(result.scenario.devices, result.total), style="bold")
    return shown


def _cells(devices: int, tally: Tally) -> list[str]:
    counts = (devices, tally.connected, tally.sent, tally.acknowledged, tally.pushes, tally.errors.total())
    return [*(f"{count:,}" for count in counts), *(milliseconds(tally, percent) for percent in PERCENTILES)]


def errors(result: Result) -> Table:
    """Return the most frequent errors by kind."""
    shown = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for kind, count in result.total.errors.most_common(ERROR_KINDS_MAX):
        shown.add_row(f"{count:,}", kind, style="red")
    return shown


def print_result(result: Result, console: Console) -> None:
    """Return the text that stays on the screen after the run."""
    console.print(table(result))
    if result.total.errors:
        console.print(errors(result))
    total = result.total
    if total.sent:
        costs = f"CPU per message: simulator {result.cpu / total.sent * 1e6:.1f} us"
        if result.server_cpu is not None:
            costs += f", server {result.server_cpu / total.sent * 1e6:.1f} us"
        console.print(costs, highlight=False)
    for remark in result.remarks:
        console.print(remark, style="bold", highlight=False, soft_wrap=True)
    for failure in result.failures():
        console.print(f"failed: {failure}", style="bold red", highlight=False, soft_wrap=True)
    if not result.failures():
        console.print("passed", style="bold green")


def milliseconds(tally: Tally, percent: float) -> str:
    """Return a percentile of the latency, or a dash."""
    return f"{tally.latency.percentile(percent) / 1e6:,.1f}" if tally.latency.total else "-"
