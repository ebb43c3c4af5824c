"""What the bench prints: a line a run, the table with medians, and the same as JSON."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.measure import Run
from bench.rows import Row

WORK_WIDTH = 20
"""Characters of the column that names the work."""
GATEWAY = "gateway"


@dataclass
class RowResult:
    """The runs of a row, one a round: on the gateway, and on each peer that does such work, by its title."""

    row: Row
    gateway: list[Run] = field(default_factory=list)
    peers: dict[str, list[Run]] = field(default_factory=dict)

    @property
    def servers(self) -> dict[str, list[Run]]:
        """The runs by server, the gateway's first."""
        return {GATEWAY: self.gateway} | self.peers

    def ratio(self, peer: str) -> float | None:
        """CPU per message of the peer as a multiple of the gateway's, of the medians."""
        theirs = self.peers.get(peer)
        if not self.gateway or not theirs:
            return None
        return median(run.server_us for run in theirs) / median(run.server_us for run in self.gateway)


def progress_line(position: str, row: Row, server: str, run: Run) -> str:
    """One finished run."""
    remarks = "".join(f"; {remark}" for remark in run.remarks)
    return f"{position}  {row.title}  {server}: {run.rate:,.0f}/s, {run.server_us:.2f} us{remarks}"


def print_table(results: Sequence[RowResult], console: Console) -> None:
    """The table, narrow enough for 80 columns; times are CPU microseconds a message."""
    table = Table(
        title="CPU per message in us: median, min-max of the rounds", box=None, padding=(0, 1, 0, 0)
    )
    table.add_column("work", width=WORK_WIDTH)
    table.add_column("server", no_wrap=True)
    for column in ("messages", "rate/s", "CPU", "ratio", "load", "NATS"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        for server, runs in result.servers.items():
            ratio = result.ratio(server)
            table.add_row(
                result.row.title if server == GATEWAY else "",
                server,
                f"{sum(run.messages for run in runs):,}",
                f"{median(run.rate for run in runs):,.0f}",
                spread([run.server_us for run in runs]),
                "" if ratio is None else f"{ratio:.1f}x",
                middle([run.generator_us for run in runs]),
                middle([run.nats_us for run in runs if run.nats_us is not None]),
            )
    console.print(table)
    for result in results:
        for server, runs in result.servers.items():
            for remark in dict.fromkeys(remark for run in runs for remark in run.remarks):
                console.print(f"{result.row.title}, {server}: {remark}", highlight=False, soft_wrap=True)


def middle(values: Sequence[float]) -> str:
    """The median, or a dash for no values."""
    return f"{median(values):.2f}" if values else "-"


def spread(values: Sequence[float]) -> str:
    """The median with minimum and maximum below it, or a dash for no values."""
    return f"{middle(values)}\n{min(values):.2f}-{max(values):.2f}" if values else "-"


def write_json(results: Sequence[RowResult], options: Mapping[str, object], path: Path) -> None:
    """Every run with its raw counts and seconds, the options, and the machine."""
    rows = [
        {
            "row": result.row.name,
            "gateway": [run_fields(run) for run in result.gateway],
            "peers": {
                peer: {"ratio": result.ratio(peer), "runs": [run_fields(run) for run in runs]}
                for peer, runs in result.peers.items()
            },
        }
        for result in results
    ]
    document = {"machine": machine(), "options": options, "rows": rows}
    path.write_text(json.dumps(document, indent=2) + "\n")


def run_fields(run: Run) -> dict[str, object]:
    """The fields of a run with what is derived from them."""
    derived = {"rate": run.rate, "server_us": run.server_us, "remarks": run.remarks}
    return asdict(run) | derived | {"lost_of_acknowledged": run.lost_of_acknowledged}


def machine() -> dict[str, object]:
    """What the figures depend on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
