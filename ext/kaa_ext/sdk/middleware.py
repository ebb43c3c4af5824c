"""Log lines and metrics of requests, for most services.

    extension.middleware(log_requests)  # or extension.on_error(log_error)
    metrics = Metrics()
    metrics.watch(extension)

Neither shows a payload. Log lines name endpoints; metrics do not.
"""

import itertools
import time
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from kaa_gateway.counters import bucket_bounds
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.handlers import CallNext
from kaa_ext.sdk.requests import Request, Response

_log: Any = structlog.get_logger("ext.requests")


async def log_requests(request: Request, call_next: CallNext) -> Response:
    """Log each request: debug for success, info for 4xx, warning for 5xx."""
    started = time.perf_counter()
    response = await call_next(request)
    status_code = response.status_code
    write = _log.debug if status_code < 400 else _log.info if status_code < 500 else _log.warning
    write(
        "request",
        endpoint=request.endpoint_id,
        resource_path=request.resource_path,
        status=status_code,
        reason=response.reason_phrase,
        ms=round((time.perf_counter() - started) * 1000, 1),
    )
    return response


def log_error(request: Request, status_code: int, reason_phrase: str | None) -> None:
    """Log a request that was answered with an error: info for 4xx, warning for 5xx. For `Extension.on_error`."""
    write = _log.info if status_code < 500 else _log.warning
    write(
        "request",
        endpoint=request.endpoint_id,
        resource_path=request.resource_path,
        status=status_code,
        reason=reason_phrase,
    )


class Metrics(Collector):
    """The Prometheus metrics of the extensions of a process: requests by route and status, their time, and all `stats`.

    A route is the pattern that a handler was registered for, so devices cannot make the tables grow.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._extensions: list[Extension] = []
        self.registry.register(self)

    def watch(self, extension: Extension) -> None:
        """Add an extension to the metrics."""
        self._extensions.append(extension)

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
        return (requests, seconds, events, running, waiting)


def _cumulative(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return the buckets of a histogram as Prometheus has them: each with those before it."""
    bounds = [*map(str, bucket_bounds()), "+Inf"]
    return list(zip(bounds, map(float, itertools.accumulate(counts)), strict=True))
