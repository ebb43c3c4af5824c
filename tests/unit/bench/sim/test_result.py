"""What a run says of itself: criteria, remarks, and the two ways to show it."""

import io
from dataclasses import replace

import pytest
from kaa_bench.sim.html import page
from kaa_bench.sim.run import Result, Second
from kaa_bench.sim.scenario import Criteria, Scenario, parse
from kaa_bench.sim.tally import Tally
from kaa_bench.sim.values import Duration
from kaa_bench.sim.view import View, print_result
from msgspec.structs import replace as with_changes
from rich.console import Console

SCENARIO = parse(
    """
name: <town>
duration: 10s
fleets:
  - {name: a, protocol: mqtt, devices: 2, interval: 1s, payload: {x: {kind: counter}}}
  - {name: b, protocol: coap, devices: 1, interval: 1s, payload: {x: {kind: counter}}}
""",
    "x.yml",
)


def result(scenario: Scenario = SCENARIO) -> Result:
    tallies = {}
    for fleet in scenario.fleets:
        tally = Tally(connected=fleet.devices, reached=fleet.devices, connects=fleet.devices, sent=100)
        for _ in range(100):
            tally.done(10.0, 10.25)
        tallies[fleet.name] = tally
    return Result(
        scenario,
        1,
        tallies,
        seconds=[Second(float(at), 3, 20.0, 20.0, 0, 1000.0, 2000.0) for at in range(1, 1500)],
        elapsed=10.0,
        cpu=0.1,
        cpu_busiest=0.1,
    )


def criteria(**changes: object) -> Scenario:
    return with_changes(SCENARIO, criteria=Criteria(**changes))  # type: ignore[arg-type]


def test_a_run_without_errors_has_passed() -> None:
    passed = result()
    assert passed.failures() == []
    assert passed.remarks == []
    assert passed.total.acknowledged == 200
    assert passed.total.latency.percentile(50) == pytest.approx(0.25e9, rel=0.001)


@pytest.mark.parametrize(
    ("scenario", "changes", "failure"),
    [
        (SCENARIO, {"errors": {"status 503": 2}}, "errors: 2, at most 0"),
        (SCENARIO, {"acknowledged": 99}, r"acknowledged: 99.5000%, at least 100.0000%"),
        (SCENARIO, {"reached": 1}, r"connected: 66.67% of the devices, at least 100.00%"),
        (criteria(p50=Duration(0.1)), {}, "p50: 0.250 s, at most 0.1 s"),
        (criteria(p99=Duration(0.2)), {}, "p99: 0.250 s, at most 0.2 s"),
    ],
)
def test_a_criterion_that_is_not_met_is_named_with_both_figures(
    scenario: Scenario, changes: dict[str, object], failure: str
) -> None:
    failed = result(scenario)
    for name, value in changes.items():
        tally = failed.tallies["a"]
        if isinstance(value, dict):
            tally.errors.update(value)
        else:
            setattr(tally, name, value)
    assert failed.failures() == [failure]


def test_what_makes_the_figures_doubtful_is_said() -> None:
    late = result()
    late.tallies["a"].late = 3
    assert late.remarks == ["simulator saturated: 3 of 200 messages left late; use more --processes"]
    busy = replace(result(), cpu_busiest=9.5, interrupted=True)
    assert busy.remarks == [
        "simulator saturated: a process used a whole core; use more --processes",
        "interrupted before its end",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_view_shows_fleets_and_errors_on_a_terminal_and_a_line_elsewhere(terminal: bool) -> None:
    shown = result()
    shown.tallies["b"].errors["code 5.03"] = 7
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    with View(console, 10) as view:
        view.show(shown)
        view.show(shown)
        live = out.getvalue()
    assert "7" in live
    assert ("code 5.03" in live) == terminal
    assert live.count("200 acknowledged") == (0 if terminal else 2)
    print_result(shown, console)
    assert "failed: errors: 7, at most 0" in out.getvalue()
    assert "CPU per message: simulator 500.0 us" in out.getvalue()


def test_the_page_escapes_what_a_scenario_says_and_thins_out_long_curves() -> None:
    shown = page(result(), "name: <town>\n")
    assert "<town>" not in shown
    assert "&lt;town&gt;" in shown
    assert shown.split("<polyline points=")[1].split('"')[1].count(",") == 500
