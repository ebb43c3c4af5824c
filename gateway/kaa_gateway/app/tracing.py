"""Traces of some messages for OpenTelemetry: the parts of one worker, put together from the configuration.

Needs the extra `tracing`, and is imported only where tracing is enabled.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from kaa_gateway import __version__
from kaa_gateway.admin.metrics import Queue
from kaa_gateway.app.message_traces import UNDER_WAY_MAX, MessageTracer
from kaa_gateway.app.span_export import BATCH_MAX, QUEUE_MAX, BoundedProcessor, CountingExporter

if TYPE_CHECKING:
    from kaa_gateway.config import keys as config_keys

log = structlog.get_logger("gateway.tracing")

FLUSH_TIMEOUT: Final = 5.0
"""Seconds that the end of the process waits for spans to leave."""
TRACES_PATH = "/v1/traces"


class Tracing:
    """The tracing of one worker. The native side calls `tracer`; the rest counts spans and stops."""

    def __init__(self, settings: config_keys.Tracing, name: str, replica_id: str, timeout: float) -> None:
        endpoint = settings.endpoint and settings.endpoint + TRACES_PATH
        self.exporter = CountingExporter(OTLPSpanExporter(endpoint=endpoint))
        self.processor = BoundedProcessor(
            self.exporter,
            int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, QUEUE_MAX)),
            int(os.environ.get(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, BATCH_MAX)),
        )
        # Sampling has been decided before a span is made, and the process ends when it is told to.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=_resource(settings, name, replica_id), shutdown_on_exit=False
        )
        self._provider.add_span_processor(self.processor)
        self.tracer = MessageTracer(settings.sample_ratio, self._provider, timeout)

    def queues(self) -> list[Queue]:
        """Return what messages can fill, for the metrics."""
        return [
            Queue("traces", lambda: len(self.tracer.traces), lambda: UNDER_WAY_MAX),
            Queue("spans", self.processor.waiting, lambda: self.processor.queue_max),
        ]

    def counts(self) -> dict[str, int]:
        """Return what became of spans, by outcome."""
        return {
            "exported": self.exporter.exported,
            "failed": self.exporter.failed,
            "dropped": self.processor.dropped + self.tracer.dropped,
        }

    async def stop(self) -> None:
        """End all traces and send their spans; give up after `FLUSH_TIMEOUT`."""
        self.tracer.end_all()
        # A daemon: neither the loop nor the process waits for a collector that does not answer.
        flush = threading.Thread(target=self._provider.shutdown, name="tracing-flush", daemon=True)
        flush.start()
        deadline = time.monotonic() + FLUSH_TIMEOUT
        while flush.is_alive() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if flush.is_alive():
            log.warning("spans were not exported in time", spans=self.processor.waiting())
            self.exporter.shutdown()


def _resource(settings: config_keys.Tracing, name: str, replica_id: str) -> Resource:
    """Return the resource of all spans: from the configuration, else the environment (OTEL_*), else the service."""
    resource = Resource.create(
        {"service.name": name, "service.version": __version__, "service.instance.id": replica_id}
    ).merge(OTELResourceDetector().detect())
    if settings.service_name:
        resource = resource.merge(Resource({"service.name": settings.service_name}))
    return resource
