"""Runs a scenario: adds up the reports of its processes, and checks the criteria."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, Self

from kaa_bench.load.histogram import Histogram
from kaa_bench.processes import cpu_seconds, process_tree
from kaa_bench.sim.load import latency_us
from kaa_bench.sim.process import Report
from kaa_bench.sim.scenario import Criteria, Scenario
from kaa_bench.sim.tally import Tally

LATE_MAX = 0.01
"""The share of late messages above which the figures are those of the simulator."""
SATURATED = 0.9
POLL_S = 0.5
ALL = "all"
"""The name of all fleets together in results."""
NANOSECONDS = 1e9


@dataclass(frozen=True)
class Second:
    """The counts of all fleets in about a second, for the plots. Times are since the start."""

    at: float
    connected: int
    sent_rate: float
    acknowledged_rate: float
    errors: int
    p50_us: float
    p99_us: float


@dataclass
class Result:
    """The result of a run; it grows during the run."""

    scenario: Scenario
    processes: int
    tallies: dict[str, Tally]
    recent: dict[str, Histogram] = field(default_factory=dict)
    seconds: list[Second] = field(default_factory=list)
    by_fleet: dict[str, list[Second]] = field(default_factory=dict)
    elapsed: float = 0.0
    cpu: float = 0.0
    cpu_busiest: float = 0.0
    server_cpu: float | None = None
    connected_most: int = 0
    interrupted: bool = False
    gave_up: bool = False
    """Whether the run has ended early because no device connected."""
    counted: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The counts at the last of the seconds, sent and acknowledged, by fleet and for all."""

    @property
    def total(self) -> Tally:
        """Return the tally of all fleets."""
        total = Tally()
        for tally in self.tallies.values():
            total.add(tally)
        return total

    @property
    def remarks(self) -> list[str]:
        """Return remarks on the reliability of the figures."""
        total, remarks = self.total, []
        if total.late > LATE_MAX * total.sent:
            remarks.append(
                f"simulator saturated: {total.late} of {total.sent} messages left late; use more --processes"
            )
        if self.elapsed and self.cpu_busiest / self.elapsed > SATURATED:
            remarks.append("simulator saturated: a process used a whole core; use more --processes")
        if self.interrupted:
            remarks.append("interrupted before its end")
        return remarks

    def failures(self) -> list[str]:
        """Return the criteria of the scenario that are not met."""
        failures = _unmet(self.scenario.criteria, self.total, self.scenario.devices)
        for fleet in self.scenario.fleets:
            if fleet.criteria is not None:
                unmet = _unmet(fleet.criteria, self.tallies[fleet.name], fleet.devices)
                failures += [f"{fleet.name}: {failure}" for failure in unmet]
        if self.gave_up:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in self.total.errors.most_common(3))
            failures.insert(0, f"no device connected in {self.scenario.give_up:g} s: {kinds or 'no answer'}")
        return failures

    def summary(self) -> dict[str, object]:
        """Return all results as JSON."""
        total = self.total
        return {
            "scenario": self.scenario.name,
            "devices": self.scenario.devices,
            "seconds": round(self.elapsed, 3),
            "passed": not self.failures(),
            "failures": self.failures(),
            "remarks": self.remarks,
            "connected_most": self.connected_most,
            "total": fields(total) | self._costs(total),
            "fleets": {name: fields(tally) for name, tally in self.tallies.items()},
        }

    def _costs(self, total: Tally) -> dict[str, float | None]:
        sent = total.sent or 1
        server = self.server_cpu
        return {
            "simulator_cpu_us_per_message": self.cpu / sent * 1e6,
            "server_cpu_us_per_message": None if server is None else server / sent * 1e6,
        }


def _unmet(criteria: Criteria, total: Tally, devices: int) -> list[str]:
    """Return the criteria that are not met by a tally."""
    errors = total.errors.total()
    failures = []
    if errors > criteria.errors:
        failures.append(f"errors: {errors}, at most {criteria.errors}")
    share = total.acknowledged / total.sent if total.sent else 0.0
    if share < criteria.acknowledged:
        failures.append(f"acknowledged: {share:.4%}, at least {criteria.acknowledged:.4%}")
    delivered = total.downlink_received / total.downlink_sent if total.downlink_sent else 1.0
    if delivered < criteria.delivered:
        failures.append(f"delivered: {delivered:.4%}, at least {criteria.delivered:.4%}")
    for percent, limit in ((50, criteria.p50), (99, criteria.p99)):
        found = total.latency.percentile(percent) / NANOSECONDS
        if limit is not None and found > limit:
            failures.append(f"p{percent}: {found:.3f} s, at most {limit:g} s")
    connected = total.reached / devices
    if connected < criteria.connected:
        failures.append(f"connected: {connected:.2%} of the devices, at least {criteria.connected:.2%}")
    return failures


def fields(tally: Tally) -> dict[str, object]:
    """Return a tally as JSON."""
    return {
        "devices_connected": tally.reached,
        "connects": tally.connects,
        "sent": tally.sent,
        "acknowledged": tally.acknowledged,
        "late": tally.late,
        "pushes": tally.pushes,
        "configurations_applied": tally.applied,
        "commands_executed": tally.commands,
        "downlink": {
            "sent": tally.downlink_sent,
            "received": tally.downlink_received,
            "latency_us": latency_us(tally.downlink_latency),
        },
        "errors": dict(tally.errors),
        "latency_us": latency_us(tally.latency),
    }


class Processes(AbstractContextManager["Processes"], Protocol):
    """The processes of a run, here or on other machines. They begin when the context is entered."""

    count: int

    def __enter__(self) -> Self:
        """Start the processes."""
        ...

    def receive(self, timeout_s: float) -> dict[int, Report]:
        """Return the new reports by the index of the process; none if there is none in time."""
        ...

    def stop(self) -> None:
        """Ask the processes to finish early."""
        ...


def run(
    scenario: Scenario,
    processes: Processes,
    begin: float,
    server: int | None,
    show: Callable[[Result], None],
) -> Result:
    """Run the scenario, whose first device starts at `begin`. `show` is called about twice a second.

    Ctrl-C ends the run early.
    """
    result = Result(scenario, processes.count, {fleet.name: Tally() for fleet in scenario.fleets})
    server_before = _cpu(server)
    reports: dict[int, Report] = {}
    with processes:
        while True:
            try:
                while not (
                    len(reports) == processes.count and all(report.final for report in reports.values())
                ):
                    reports |= processes.receive(POLL_S)
                    result.elapsed = max(0.0, time.time() - begin)
                    _gather(result, list(reports.values()))
                    show(result)
                    if not result.gave_up and result.elapsed > scenario.give_up and not result.total.reached:
                        result.gave_up = True
                        processes.stop()
                break
            except KeyboardInterrupt:
                result.interrupted = True
                processes.stop()
    if server is not None:
        result.server_cpu = _cpu(server) - server_before
    return result


def _gather(result: Result, reports: list[Report]) -> None:
    """Add up the reports of the processes, and add a second to the plots."""
    for name in result.tallies:
        tally, recent = Tally(), Histogram()
        for report in reports:
            tally.add(report.tallies[name])
            recent.merge(report.recent[name])
        result.tallies[name], result.recent[name] = tally, recent
    total = result.total
    result.cpu = sum(report.cpu_seconds for report in reports)
    result.cpu_busiest = max((report.cpu_seconds for report in reports), default=0.0)
    result.connected_most = max(result.connected_most, total.connected)
    last = result.seconds[-1].at if result.seconds else 0.0
    span = result.elapsed - last
    if span < 1.0:
        return
    # Rates are over all reports since the last point.
    latency = Histogram()
    for name, recent in result.recent.items():
        latency.merge(recent)
        second = _second(result, name, result.tallies[name], recent, span)
        result.by_fleet.setdefault(name, []).append(second)
    result.seconds.append(_second(result, ALL, total, latency, span))


def _second(result: Result, name: str, tally: Tally, latency: Histogram, span: float) -> Second:
    """Return the counts of the last second of a fleet, or of all."""
    sent_before, acknowledged_before = result.counted.get(name, (0, 0))
    result.counted[name] = tally.sent, tally.acknowledged
    return Second(
        at=result.elapsed,
        connected=tally.connected,
        sent_rate=(tally.sent - sent_before) / span,
        acknowledged_rate=(tally.acknowledged - acknowledged_before) / span,
        errors=tally.errors.total(),
        p50_us=latency.percentile(50) / 1000,
        p99_us=latency.percentile(99) / 1000,
    )


def _cpu(server: int | None) -> float:
    return 0.0 if server is None else sum(map(cpu_seconds, process_tree(server)))
