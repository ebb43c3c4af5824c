"""Writes a run for other programs: seconds as CSV, and counts for Prometheus while it runs."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kaa_bench.errors import BenchError
from kaa_bench.sim.run import ALL, Result

COLUMNS = (
    "fleet", "seconds", "connected", "sent_per_second", "acknowledged_per_second", "errors", "p50_us", "p99_us",
)  # fmt: skip
COUNTERS = ("connects", "sent", "acknowledged", "pushes")
QUANTILES = (50.0, 99.0, 99.9)


def check_paths(*paths: Path | None) -> None:
    """Raise BenchError if a file cannot be written, before a run whose results it is for."""
    for path in paths:
        if path is None:
            continue
        try:
            # What is there stays until the results are.
            path.open("a").close()
        except OSError as error:
            raise BenchError(f"{path} cannot be written: {error.strerror}") from None


def write_csv(result: Result, path: Path) -> None:
    """Write a line for each second of each fleet, and of all."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, seconds in {**result.by_fleet, ALL: result.seconds}.items():
            for second in seconds:
                writer.writerow(
                    (
                        name,
                        f"{second.at:.3f}",
                        second.connected,
                        f"{second.sent_rate:.1f}",
                        f"{second.acknowledged_rate:.1f}",
                        second.errors,
                        f"{second.p50_us:.0f}",
                        f"{second.p99_us:.0f}",
                    )
                )


class Exporter(Collector):
    """The counts of a run, for Prometheus. `show` takes each new result."""

    def __init__(self, port: int) -> None:
        self._result: Result | None = None
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, registry=registry)
        except OSError as error:
            raise BenchError(f"--prometheus-port {port}: {error.strerror}") from None

    def show(self, result: Result) -> None:
        """Take a result."""
        self._result = result

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of the last result."""
        return [] if self._result is None else list(_metrics(self._result))


def _metrics(result: Result) -> Iterator[Metric]:
    connected = GaugeMetricFamily("kaa_sim_connected", "Devices that are connected.", labels=["fleet"])
    errors = CounterMetricFamily("kaa_sim_errors", "Errors by kind.", labels=["fleet", "kind"])
    latency = GaugeMetricFamily(
        "kaa_sim_latency_seconds", "Latency since the start, by percentile.", labels=["fleet", "percentile"]
    )
    for name, tally in result.tallies.items():
        connected.add_metric([name], tally.connected)
        for kind, count in tally.errors.items():
            errors.add_metric([name, kind], count)
        for percent in QUANTILES if tally.latency.total else ():
            latency.add_metric([name, f"{percent:g}"], tally.latency.percentile(percent) / 1e9)
    yield from (connected, errors, latency)
    for counter in COUNTERS:
        family = CounterMetricFamily(f"kaa_sim_{counter}", f"Devices' {counter} so far.", labels=["fleet"])
        for name, tally in result.tallies.items():
            family.add_metric([name], getattr(tally, counter))
        yield family
