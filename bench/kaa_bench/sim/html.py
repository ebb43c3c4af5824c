"""Writes a run as one HTML file with tables and plots, which loads nothing."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from kaa_gateway import __version__

from kaa_bench import svg
from kaa_bench.sim.run import Result, Second, fields
from kaa_bench.sim.scenario import Scenario
from kaa_bench.svg import Line

POINTS_MAX = 600
"""The greatest number of points of a curve."""
POINTS_NARROW_MAX = 200
"""The same on a phone."""
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#24292f;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1,h3,p,li{overflow-wrap:anywhere}table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.25rem .5rem;text-align:right;border-bottom:1px solid #d8dee4}
td:first-child,th:first-child{text-align:left}.passed{color:#1a7f37}.failed{color:#cf222e}
svg{width:100%;height:auto}.plot{max-width:60rem}.narrow{display:none}
pre{background:#f6f8fa;padding:.75rem;white-space:pre-wrap;overflow-wrap:anywhere}
@media(max-width:70rem){table{width:100%}tr:first-child{display:none}tr{display:block;margin:.75rem 0}
td{display:flex;justify-content:space-between;gap:1rem;overflow-wrap:anywhere}td:first-child{font-weight:600}
td::before{content:attr(data-head);text-align:left}td:first-child::before{content:none}}
@media(max-width:44rem){h1{font-size:1.4rem}.plot{display:none}.narrow{display:block}}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}td,th{border-color:#30363d}pre{background:#161b22}
.passed{color:#3fb950}.failed{color:#f85149}}
"""
PORTS = (
    ("mqtt", "tcp", "mqtt"), ("mqtt", "tls", "mqtt_tls"), ("mqtt", "websocket", "websocket"),
    ("mqtt", "websocket-tls", "websocket_tls"), ("http", "tcp", "http"), ("http", "tls", "https"),
    ("coap", "tcp", "coap"), ("kpudp", "tcp", "kpudp"),
)  # fmt: skip
"""Protocol and transport of a fleet, and the field of the target that has the port."""


def page(result: Result, source: str) -> str:
    """Return the report. `source` is the text of the scenario."""
    scenario, total = result.scenario, result.total
    failures = result.failures()
    verdict = "passed" if not failures else "failed"
    summary = result.summary()
    costs = summary["total"]
    assert isinstance(costs, dict)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(scenario.name)}</title>",
        f"<style>{STYLE}</style></head><body>",
        f'<h1>{escape(scenario.name)}: <span class="{verdict}">{verdict}</span></h1>',
        f"<p>{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {scenario.devices:,} devices, {result.elapsed:,.0f} s, "
        f"{result.processes} processes, against {escape(_target(scenario))}; kaa-sim {__version__}. "
        "Latency counts from when a message was meant to be sent.</p>",
        _list([*failures, *result.remarks]),
        "<h2>Fleets</h2>",
        _table(
            (
                "fleet",
                "devices",
                "connects",
                "sent",
                "acknowledged",
                "pushes",
                "applied",
                "commands",
                "errors",
                "p50 ms",
                "p99 ms",
                "p99.9 ms",
                "max ms",
            ),
            [
                *(
                    _fleet(fleet.name, fleet.devices, fields(result.tallies[fleet.name]))
                    for fleet in scenario.fleets
                ),
                _fleet("all", scenario.devices, fields(total)),
            ],
        ),
        *_downlink(result),
        "<h2>Cost</h2>",
        _table(
            ("CPU per message", "microseconds"),
            [
                ("simulator", _number(costs["simulator_cpu_us_per_message"])),
                ("server", _number(costs["server_cpu_us_per_message"])),
            ],
        ),
    ]
    if total.errors:
        parts += [
            "<h2>Errors</h2>",
            _table(("kind", "count"), [(kind, f"{count:,}") for kind, count in total.errors.most_common()]),
        ]
    parts += ["<h2>Over time</h2>", *_plots("all fleets", result.seconds)]
    if len(scenario.fleets) > 1:
        for fleet in scenario.fleets:
            parts += [
                f"<h3>{escape(fleet.name)}</h3>",
                *_plots(fleet.name, result.by_fleet.get(fleet.name, ())),
            ]
    parts += [
        "<h2>Scenario</h2>",
        f"<details><summary>{escape(scenario.name)}</summary><pre>{escape(source)}</pre></details>",
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _downlink(result: Result) -> list[str]:
    """Return a table of pushes, if there are any."""
    rows = [
        (
            name,
            f"{tally.downlink_sent:,}",
            f"{tally.downlink_received:,}",
            *(f"{tally.downlink_latency.percentile(percent) / 1e6:,.1f}" for percent in (50.0, 99.0, 100.0)),
        )
        for name, tally in result.tallies.items()
        if tally.downlink_sent
    ]
    head = ("fleet", "pushed", "received", "p50 ms", "p99 ms", "max ms")
    return ["<h2>Downlink</h2>", _table(head, rows)] if rows else []


def _target(scenario: Scenario) -> str:
    """Return host and ports that the fleets use."""
    used = {(fleet.protocol, fleet.transport) for fleet in scenario.fleets}
    ports = [
        f"{protocol}{'' if transport == 'tcp' else f' over {transport}'} {getattr(scenario.target, field)}"
        for protocol, transport, field in PORTS
        if (protocol, transport) in used
    ]
    return f"{scenario.target.host} ({', '.join(ports)})"


def _plots(whose: str, seconds: Sequence[Second]) -> list[str]:
    """Draw rates, latency and connections of a fleet or all over time, for a desk and for a phone."""
    plots = []
    for name, narrow, points_max in (("plot", False, POINTS_MAX), ("narrow", True, POINTS_NARROW_MAX)):
        drawn = _drawn(whose, _thinned(seconds, points_max), narrow=narrow)
        plots += [f'<div class="{name}">{plot}</div>' for plot in drawn]
    return plots


def _drawn(whose: str, seconds: Sequence[Second], *, narrow: bool) -> tuple[str, ...]:
    return (
        svg.lines(
            f"{whose}: messages a second",
            "seconds",
            "",
            [
                Line("sent", [(second.at, second.sent_rate) for second in seconds]),
                Line("acknowledged", [(second.at, second.acknowledged_rate) for second in seconds]),
            ],
            narrow=narrow,
        ),
        svg.lines(
            f"{whose}: latency",
            "seconds",
            "milliseconds",
            [
                Line("median", [(second.at, second.p50_us / 1000) for second in seconds]),
                Line("99 %", [(second.at, second.p99_us / 1000) for second in seconds]),
            ],
            logarithmic_y=True,
            narrow=narrow,
        ),
        svg.lines(
            f"{whose}: devices, and errors so far",
            "seconds",
            "",
            [
                Line("connected", [(second.at, float(second.connected)) for second in seconds]),
                Line("errors", [(second.at, float(second.errors)) for second in seconds]),
            ],
            narrow=narrow,
        ),
    )


def _fleet(name: str, devices: int, counts: dict[str, object]) -> tuple[str, ...]:
    latency, errors = counts["latency_us"], counts["errors"]
    assert isinstance(latency, dict)
    assert isinstance(errors, dict)
    numbers = (
        devices, counts["connects"], counts["sent"], counts["acknowledged"], counts["pushes"],
        counts["configurations_applied"], counts["commands_executed"], sum(errors.values()),
    )  # fmt: skip
    tails = (latency.get(percent) for percent in ("50", "99", "99.9", "100"))
    return (
        name,
        *(f"{number:,}" for number in numbers),
        *("-" if tail is None else f"{tail / 1000:,.1f}" for tail in tails),
    )


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:,.1f}"


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>" if items else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{_cells(head, row)}</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _cells(head: Sequence[str], row: Sequence[str]) -> str:
    """Return the cells of a row. On a phone, each but the first stands in a line of its own, with its heading."""
    first, *others = row
    named = zip(head[1:], others, strict=True)
    return f"<td>{escape(first)}</td>" + "".join(
        f'<td data-head="{escape(name)}">{escape(cell)}</td>' for name, cell in named
    )


def _thinned(seconds: Sequence[Second], points_max: int) -> Sequence[Second]:
    return seconds[:: -(-len(seconds) // points_max) or 1]
