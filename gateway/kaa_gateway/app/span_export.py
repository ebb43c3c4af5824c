"""Exports spans: a bounded queue and an exporter in a thread of its own, both with counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

log = structlog.get_logger("gateway.tracing")

QUEUE_MAX: Final = 2048
"""Spans that wait for the collector, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise; those beyond are dropped."""
BATCH_MAX: Final = 64
"""Spans sent at once, unless OTEL_BSP_MAX_EXPORT_BATCH_SIZE says otherwise: encoding holds Python's lock."""


class CountingExporter(SpanExporter):
    """Wraps an exporter, and counts what became of its spans. Runs in the exporting thread."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        self.exported = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; wait for the collector as long as OTEL_EXPORTER_OTLP_TIMEOUT says."""
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            failing = result is not SpanExportResult.SUCCESS
            if failing:
                self.failed += len(spans)
            else:
                self.exported += len(spans)
            if failing and not self._failing:
                log.error("spans cannot be exported")
            elif self._failing and not failing:
                log.info("spans are exported again")
            self._failing = failing
        return result

    def shutdown(self) -> None:
        """Give up what is under way. See SpanExporter."""
        self._exporter.shutdown()


class BoundedProcessor(BatchSpanProcessor):
    """Queues spans for an exporter that runs in a thread of its own. Drops and counts spans beyond `queue_max`."""

    def __init__(self, exporter: CountingExporter, queue_max: int, batch_max: int) -> None:
        super().__init__(exporter, max_queue_size=queue_max, max_export_batch_size=min(batch_max, queue_max))
        self._exporter = exporter
        self._accepted = 0
        self.queue_max = queue_max
        self.dropped = 0

    def waiting(self) -> int:
        """Return the number of spans that are queued or being sent."""
        return self._accepted - self._exporter.exported - self._exporter.failed

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span; never waits."""
        if self.waiting() >= self.queue_max:
            self.dropped += 1
            return
        self._accepted += 1
        super().on_end(span)
