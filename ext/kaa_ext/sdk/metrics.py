"""The Prometheus metrics of extensions. They show neither payloads nor endpoints."""

import itertools
import platform
from collections.abc import Iterable, Sequence

from kaa_gateway import __version__
from kaa_gateway.counters import bucket_bounds
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from kaa_ext.sdk.runner import Service


class Metrics(Collector):
    """The metrics of the extensions of a process: requests by route and status, their time, queues, and all `stats`.

    A route is the pattern that a handler was registered for, so devices cannot make the tables grow. Counters are read
    when Prometheus asks; they cost a request nothing more.
    """

    def __init__(self, extensions: Iterable[Service]) -> None:
        self._extensions = list(extensions)
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of the extensions; called by Prometheus's registry at each scrape."""
        requests = CounterMetricFamily(
            "kaa_ext_requests",
            "Requests, by handler and status code.",
            labels=["extension", "route", "status"],
        )
        seconds = HistogramMetricFamily(
            "kaa_ext_request_seconds",
            "Time from the arrival of a request to its response.",
            labels=["extension", "route"],
        )
        events = CounterMetricFamily(
            "kaa_ext_events",
            "What an extension counts; docs/extensions.md explains the events.",
            labels=["extension", "event"],
        )
        running = GaugeMetricFamily("kaa_ext_running_requests", "Requests in progress.", labels=["extension"])
        waiting = GaugeMetricFamily(
            "kaa_ext_waiting_messages", "Received messages that wait for others to end.", labels=["extension"]
        )
        unconfirmed = GaugeMetricFamily(
            "kaa_ext_unconfirmed_bytes", "Bytes sent to NATS that it has not confirmed.", labels=["extension"]
        )
        up = GaugeMetricFamily(
            "kaa_ext_up", "Whether the extension takes requests: 1, or 0.", labels=["extension"]
        )
        build = GaugeMetricFamily(
            "kaa_ext_build_info", "Always 1; the versions are in the labels.", labels=["version", "python"]
        )
        build.add_metric([__version__, platform.python_version()], 1)
        for extension in self._extensions:
            for route in extension.routes:
                for status, count in route.statuses().items():
                    requests.add_metric([extension.name, route.pattern, str(status)], count)
                buckets, total = route.seconds.snapshot()
                seconds.add_metric([extension.name, route.pattern], _cumulative(buckets), total)
            for name, count in extension.stats.items():
                events.add_metric([extension.name, name], count)
            running.add_metric([extension.name], extension.running)
            waiting.add_metric([extension.name], extension.waiting)
            unconfirmed.add_metric([extension.name], extension.unconfirmed_bytes)
            up.add_metric([extension.name], int(not extension.obstacles))
        return (requests, seconds, events, running, waiting, unconfirmed, up, build)


def _cumulative(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return the buckets of a histogram as Prometheus has them: each with those before it."""
    bounds = [*map(str, bucket_bounds()), "+Inf"]
    return list(zip(bounds, map(float, itertools.accumulate(counts)), strict=True))
