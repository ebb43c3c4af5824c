"""Middleware for most services: log lines and metrics of requests.

    extension.middleware(log_requests)
    metrics = Metrics()
    metrics.watch(extension)

Neither shows a payload. Log lines name endpoints; metrics do not.
"""

import time
from collections.abc import Iterable
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
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


class Metrics(Collector):
    """The Prometheus metrics of the extensions of a process: requests by route and status, their time, and all `stats`.

    A route is the pattern that a handler was registered for, so devices cannot make the tables grow.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._extensions: list[Extension] = []
        self._requests = Counter(
            "kaa_ext_requests",
            "Requests, by handler and status code.",
            ["extension", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "kaa_ext_request_seconds",
            "Time from a request to its response.",
            ["extension", "route"],
            registry=self.registry,
        )
        self.registry.register(self)

    def watch(self, extension: Extension) -> None:
        """Add an extension to the metrics."""
        self._extensions.append(extension)

        async def count(request: Request, call_next: CallNext) -> Response:
            started = time.perf_counter()
            response = await call_next(request)
            self._requests.labels(extension.name, request.route, str(response.status_code)).inc()
            self._seconds.labels(extension.name, request.route).observe(time.perf_counter() - started)
            return response

        extension.middleware(count)

    def collect(self) -> Iterable[Metric]:
        """Return the `stats` of the extensions; called by Prometheus's registry at each scrape."""
        family = CounterMetricFamily(
            "kaa_ext_events",
            "What an extension counts; docs/extensions.md explains the events.",
            labels=["extension", "event"],
        )
        for extension in self._extensions:
            for name, count in extension.stats.items():
                family.add_metric([extension.name, name], count)
        yield family
