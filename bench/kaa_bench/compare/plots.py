"""Plots a comparison: bars of cost by protocol, and latency over rate."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from kaa_bench import svg
from kaa_bench.compare.comparison import Comparison
from kaa_bench.compare.report import GATEWAY, ProbeResult
from kaa_bench.svg import Bar, Line

LATENCY_DETAILS = ("p50", "p99")


def write_plots(results: Comparison, directory: Path) -> None:
    """Write an SVG file for the floods, one for each unit of the probes, and one for latency."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, plot in plots(results).items():
        (directory / f"{name}.svg").write_text(plot)


def plots(results: Comparison) -> dict[str, str]:
    """Return the SVG texts by name."""
    found = {}
    if results.floods:
        found["messages"] = svg.bars("CPU of the server per message", "microseconds", _flood_bars(results))
    for name, title in (
        ("us CPU", "CPU per operation"),
        ("bytes", "memory per idle MQTT connection"),
        ("messages/s", "messages a second of the busiest worker's CPU"),
    ):
        chosen = [result for result in results.probes if result.probe.unit == name]
        if chosen:
            stem = {"us CPU": "operations", "bytes": "memory", "messages/s": "workers"}[name]
            found[stem] = svg.bars(title, name, _probe_bars(chosen))
    latencies = [result for result in results.probes if result.probe.rate is not None]
    if latencies:
        found["latency"] = svg.lines(
            "device to extension and back: median and 99 %",
            "requests a second",
            "microseconds",
            _latency_lines(latencies),
            logarithmic=True,
        )
    return found


def _flood_bars(results: Comparison) -> list[Bar]:
    return [
        Bar(
            result.row.title,
            server,
            median(run.server_us for run in runs),
            min(run.server_us for run in runs),
            max(run.server_us for run in runs),
            server == GATEWAY,
        )
        for result in results.floods
        for server, runs in result.servers.items()
    ]


def _probe_bars(results: Sequence[ProbeResult]) -> list[Bar]:
    return [
        Bar(
            result.probe.title,
            title,
            median(figure.value for figure in figures),
            min(figure.value for figure in figures),
            max(figure.value for figure in figures),
            title.startswith(GATEWAY) or result.probe.unit == "messages/s",
        )
        for result in results
        for title, figures in result.figures.items()
    ]


def _latency_lines(results: Sequence[ProbeResult]) -> list[Line]:
    curves = []
    for title in dict.fromkeys(title for result in results for title in result.figures):
        for detail in LATENCY_DETAILS:
            points = [
                (float(result.probe.rate or 0), value)
                for result in results
                if title in result.figures and (value := result.detail(title, detail)) is not None
            ]
            curves.append(Line(f"{title}, {detail}", points))
    return curves
