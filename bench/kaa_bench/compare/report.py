"""Prints a line for each run, and the tables with medians."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table

from kaa_bench.compare.figures import Figure, Probe
from kaa_bench.compare.measure import Run
from kaa_bench.compare.rows import Row

WORK_WIDTH = 20
"""Characters of the column with the name of the work."""
GATEWAY = "gateway"
NATS_DETAIL = "nats_us"
"""The detail of a figure with the CPU microseconds of nats-server per message."""
TAIL_DETAILS = ("p99", "p99.9")
"""The percentiles of a latency that are shown beside its value."""


@dataclass
class RowResult:
    """The runs of a row, one a round, on the gateway and, by title, on each peer that supports it."""

    row: Row
    gateway: list[Run] = field(default_factory=list)
    peers: dict[str, list[Run]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """The failure of a peer, by its title."""

    @property
    def servers(self) -> dict[str, list[Run]]:
        """Return the runs by server, the gateway's first."""
        return {GATEWAY: self.gateway} | self.peers

    def ratio(self, peer: str) -> float | None:
        """Return the median CPU per message of a peer as a multiple of the gateway's."""
        theirs = self.peers.get(peer)
        if not self.gateway or not theirs:
            return None
        return median(run.server_us for run in theirs) / median(run.server_us for run in self.gateway)


@dataclass
class ProbeResult:
    """The figures of a probe, one a round, by subject. The other subjects are compared with the first."""

    probe: Probe
    figures: dict[str, list[Figure]] = field(default_factory=dict)

    def ratio(self, title: str) -> float | None:
        """Return the subject's median as a multiple of the first one's; None for the first itself."""
        first = next(iter(self.figures), title)
        if title == first:
            return None
        below = median(figure.value for figure in self.figures[first])
        return median(figure.value for figure in self.figures[title]) / below if below else None

    def detail(self, title: str, name: str) -> float | None:
        """Return the median of a detail of a subject, None if it has none."""
        values = [figure.details[name] for figure in self.figures[title] if name in figure.details]
        return median(values) if values else None

    def tail(self, title: str) -> list[str]:
        """Return the medians of the subject's highest percentiles as text, empty if it has none."""
        found = [self.detail(title, name) for name in TAIL_DETAILS]
        return ["" if value is None else number(value) for value in found]


def figure_line(position: str, probe: Probe, title: str, figure: Figure) -> str:
    """Return the line of a finished measurement."""
    remarks = "".join(f"; {remark}" for remark in figure.remarks)
    return f"{position}  {probe.title}  {title}: {number(figure.value)} {probe.unit}{remarks}"


def print_figures(results: Sequence[ProbeResult], console: Console) -> None:
    """Return the table of the probes. A ratio is to the first line of its probe."""
    table = Table(title="median, min-max of the rounds", box=None, padding=(0, 1, 0, 0))
    table.add_column("what", width=WORK_WIDTH)
    table.add_column("who", no_wrap=True)
    for column in ("median", "min-max", "ratio", *TAIL_DETAILS, "NATS"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        for index, (title, figures) in enumerate(result.figures.items()):
            values = [figure.value for figure in figures]
            ratio, nats = result.ratio(title), result.detail(title, NATS_DETAIL)
            table.add_row(
                f"{result.probe.title} ({result.probe.unit})" if index == 0 else "",
                title,
                number(median(values)),
                f"{number(min(values))}-{number(max(values))}",
                "" if ratio is None else f"{ratio:.1f}x",
                *result.tail(title),
                "" if nats is None else number(nats),
            )
    console.print(table)
    for remark in figure_remarks(results):
        console.print(remark, highlight=False, soft_wrap=True)


def figure_remarks(results: Sequence[ProbeResult]) -> list[str]:
    """Return the remarks on the figures of probes, each once."""
    said = [
        f"{result.probe.title}, {title}: {remark}"
        for result in results
        for title, figures in result.figures.items()
        for figure in figures
        for remark in figure.remarks
    ]
    return list(dict.fromkeys(said))


def number(value: float) -> str:
    """Format a number with three significant digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def progress_line(position: str, row: Row, server: str, run: Run) -> str:
    """Return the line of a finished run."""
    remarks = "".join(f"; {remark}" for remark in run.remarks)
    return f"{position}  {row.title}  {server}: {run.rate:,.0f}/s, {run.server_us:.2f} us{remarks}"


def print_table(results: Sequence[RowResult], console: Console) -> None:
    """Return the table, of at most 80 columns; times are CPU microseconds a message."""
    table = Table(
        title="CPU per message in us: median, min-max of the rounds", box=None, padding=(0, 1, 0, 0)
    )
    table.add_column("work", width=WORK_WIDTH)
    table.add_column("server", no_wrap=True)
    for column in ("rate/s", "CPU", "ratio", "load", "NATS"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        for server, runs in result.servers.items():
            ratio = result.ratio(server)
            table.add_row(
                result.row.title if server == GATEWAY else "",
                server,
                f"{median(run.rate for run in runs):,.0f}",
                spread([run.server_us for run in runs]),
                "" if ratio is None else f"{ratio:.1f}x",
                middle([run.generator_us for run in runs]),
                middle([run.nats_us for run in runs if run.nats_us is not None]),
            )
    console.print(table)
    for remark in remarks(results):
        console.print(remark, highlight=False, soft_wrap=True)


def remarks(results: Sequence[RowResult]) -> list[str]:
    """Return the remarks on the reliability of the figures, each once."""
    said = [
        f"{result.row.title}, {server}: {remark}"
        for result in results
        for server, runs in result.servers.items()
        for run in runs
        for remark in run.remarks
    ]
    said += [
        f"{result.row.title}, {peer} failed: {failure}"
        for result in results
        for peer, failure in result.failures.items()
    ]
    return list(dict.fromkeys(said))


def middle(values: Sequence[float]) -> str:
    """Return the median, or a dash without values."""
    return f"{median(values):.2f}" if values else "-"


def spread(values: Sequence[float]) -> str:
    """Return the median with minimum and maximum below it, or a dash without values."""
    return f"{middle(values)}\n{min(values):.2f}-{max(values):.2f}" if values else "-"
