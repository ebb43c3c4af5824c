"""Runs the rounds of a comparison: in each, every row on the gateway and then on its peers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from kaa_bench.compare.figures import Scale
from kaa_bench.compare.measure import Run, Work, measure_gateway, measure_peer
from kaa_bench.compare.probes import PROBES
from kaa_bench.compare.report import GATEWAY, ProbeResult, RowResult, figure_line, progress_line
from kaa_bench.compare.rows import ROWS, Row
from kaa_bench.compare.servers import Servers
from kaa_bench.errors import BenchError
from kaa_bench.peers.servers import PEERS, Peer


@dataclass
class Comparison:
    """The results of the chosen rows, in order: floods, then probes."""

    floods: list[RowResult] = field(default_factory=list)
    probes: list[ProbeResult] = field(default_factory=list)

    @classmethod
    def of(cls, names: Sequence[str] | None) -> "Comparison":
        """Return an empty comparison of the named rows, or of all if none are named."""
        chosen = dict.fromkeys(names or (*ROWS, *PROBES))
        return cls(
            [RowResult(ROWS[name]) for name in chosen if name in ROWS],
            [ProbeResult(PROBES[name]) for name in chosen if name in PROBES],
        )


def run_rounds(
    results: Comparison,
    rounds: int,
    work: Work,
    scale: Scale,
    servers: Servers,
    progress: Console,
    save: Callable[[], None],
) -> None:
    """Run all rounds, and fill the results. `save` is called after each, so that a later fault loses none."""
    for number in range(1, rounds + 1):
        position = f"round {number}/{rounds}"
        for result in results.floods:
            with progress.status(f"{position}  {result.row.title}"):
                _run_row(result, work, servers, progress, position)
        for probe_result in results.probes:
            probe = probe_result.probe
            with progress.status(f"{position}  {probe.title}"):
                for subject in probe.subjects(servers, scale):
                    figure = subject.measure()
                    probe_result.figures.setdefault(subject.title, []).append(figure)
                    line = figure_line(position, probe, subject.title, figure)
                    progress.print(line, soft_wrap=True)
        save()


def _run_row(result: RowResult, work: Work, servers: Servers, progress: Console, position: str) -> None:
    def report(server: str, run: Run) -> None:
        progress.print(progress_line(position, result.row, server, run), soft_wrap=True)

    if result.row.durable:
        run = measure_gateway(result.row, servers.durable_gateway, servers.storing_nats, work)
    else:
        run = measure_gateway(result.row, servers.gateway, servers.nats, work)
    result.gateway.append(run)
    report(GATEWAY, run)
    for peer in servers.peers(*(kind for kind in PEERS if _takes_part(kind, result.row))):
        row, title = result.row, peer.title
        if row.load.mqtt_version == "5" and not peer.mqtt_5:
            row, title = row.of_mqtt_3_1_1, f"{peer.title} (3.1.1)"
        try:
            run = measure_peer(row, peer, work, servers.nats)
        except BenchError as error:
            # A peer that fails under this load is a result, not the end of the comparison.
            progress.print(f"{position}  {row.title}  {title}: {error}", style="bold")
            result.failures[title] = str(error)
            continue
        result.peers.setdefault(title, []).append(run)
        report(title, run)


def _takes_part(kind: type[Peer], row: Row) -> bool:
    """Return whether a kind of peer is measured in the row."""
    if kind.protocol != row.load.protocol or row.load.carrier not in kind.carried_by:
        return False
    if row.durable and not kind.stores:
        return False
    return row.load.mqtt_version != "5" or kind.mqtt_5 or kind.compared_with_mqtt_5
