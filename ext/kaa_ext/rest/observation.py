"""Observes the requests of the REST API: counts them for Prometheus, and writes the access log.

Neither shows query strings or bodies.
"""

import platform
import time
from typing import TYPE_CHECKING, Any

import structlog
from kaa_gateway import __version__
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from kaa_ext.rest.services import Services

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

log: Any = structlog.get_logger("access")

NO_OPERATION = "none"
"""The label of requests that reach no operation, such as those without the token."""
NO_ANSWER = 0
"""The status of a request whose client has left before the answer."""


class Metrics:
    """The Prometheus metrics of the REST API, in `registry`. Operations are those of the OpenAPI document."""

    def __init__(self, services: Services) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "kaa_rest_requests",
            "Requests, by operation and status code.",
            ["operation", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "kaa_rest_request_seconds",
            "Time from a request to the end of its response.",
            ["operation"],
            registry=self.registry,
        )
        self.running = Gauge("kaa_rest_running_requests", "Requests in progress.", registry=self.registry)
        up = Gauge("kaa_rest_up", "Whether NATS is connected: 1, or 0.", registry=self.registry)
        up.set_function(lambda: float(services.is_ready))
        build = Info("kaa_rest_build", "Always 1; the versions are in the labels.", registry=self.registry)
        build.info({"version": __version__, "python": platform.python_version()})

    def note(self, operation: str, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests.labels(operation, str(status)).inc()
        self._seconds.labels(operation).observe(seconds)


class Observation:
    """The observation of requests, around an application."""

    def __init__(self, app: "ASGIApp", metrics: Metrics, *, access_log: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, and note how it ended."""
        begin = time.perf_counter()
        status = NO_ANSWER

        async def noting(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._metrics.running.track_inprogress():
            try:
                await self._app(scope, receive, noting)
            finally:
                seconds = time.perf_counter() - begin
                operation = _operation(scope)
                self._metrics.note(operation, status, seconds)
                if self._access_log:
                    log.info(
                        "request",
                        method=scope.get("method"),
                        path=scope["path"],
                        operation=operation,
                        status=status,
                        milliseconds=round(seconds * 1000, 1),
                        peer=scope["client"][0] if scope["client"] else None,
                    )


def _operation(scope: "Scope") -> str:
    """Return the operation that a request has reached."""
    handler = scope.get("route_handler")
    return getattr(handler, "operation_id", None) or NO_OPERATION
