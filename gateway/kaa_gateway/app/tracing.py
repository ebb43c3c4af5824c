"""Traces of some messages for OpenTelemetry: which ones, what their spans say, and how spans leave the process.

Native code counts messages down to the next that is traced, writes its `traceparent` to NATS, and tells what becomes
of it (kp.uplink, kp.downlink, bus.link, bus.durable); it knows nothing of OpenTelemetry. This module needs the extra
`tracing`, and is imported only where tracing is enabled.

Source: W3C Trace Context; OpenTelemetry semantic conventions, "Messaging spans".
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span, SpanKind, StatusCode

from kaa_gateway import __version__
from kaa_gateway.bus import subjects

if TYPE_CHECKING:
    from kaa_gateway.config import keys as config_keys

log = structlog.get_logger("gateway.tracing")

UNDER_WAY_MAX = 10_000
"""Traces whose message is not confirmed or answered yet; a message beyond is not traced."""
QUEUE_MAX = 2048
"""Spans that wait for the collector, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise; those beyond are dropped."""
BATCH_MAX = 64
"""Spans sent at once, unless OTEL_BSP_MAX_EXPORT_BATCH_SIZE says otherwise: encoding holds Python's lock."""
FLUSH_TIMEOUT: Final = 5.0
"""Seconds that the end of the process waits for spans to leave."""
TRACES_PATH = "/v1/traces"
SERVER_ERRORS = 500
"""Status codes from here on say that it was not the device's fault."""
TIMEOUT = "timeout"
SHUTDOWN = "shutdown"


class MessageTrace:
    """The span of one message, from its arrival to its answer, or to its confirmation if no answer is awaited."""

    __slots__ = ("_awaits_answer", "_blocks", "_correlation_id", "_span", "_tracer", "deadline", "field")

    def __init__(
        self,
        tracer: MessageTracer,
        span: Span,
        correlation_id: bytes,
        deadline: float,
        *,
        awaits_answer: bool,
    ) -> None:
        context = span.get_span_context()
        self._tracer = tracer
        self._span = span
        self._correlation_id = correlation_id
        self._awaits_answer = awaits_answer
        self._blocks = 1
        self.deadline = deadline
        self.field = (
            f"traceparent: 00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}\r\n"
        ).encode()

    def confirmed(self) -> None:
        """NATS, or the stream, has the message."""
        self._blocks -= 1
        if self._blocks == 0 and self._span.is_recording():
            self._span.add_event("confirmed")
            if not self._awaits_answer:
                self._end()

    def repeated(self) -> None:
        """The message was published again, which is to be confirmed as well."""
        self._blocks += 1

    def answered(self, status_code: int) -> None:
        """The device's session has taken the extension's answer."""
        self._span.set_attribute("kaa.status_code", status_code)
        if status_code >= SERVER_ERRORS:
            self._set_error(str(status_code))
        self._end()

    def failed(self, reason: str) -> None:
        """Nothing more will come of the message, for a reason of docs/reasons.md."""
        if self._span.is_recording():
            self._set_error(reason)
            self._end()

    def _set_error(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR)

    def _end(self) -> None:
        self._tracer.traces.pop(self._correlation_id, None)
        self._span.end()


class MessageTracer:
    """Traces each message with a probability; what is still under way after `timeout` seconds has failed."""

    def __init__(
        self,
        ratio: float,
        provider: TracerProvider,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ratio = ratio
        self._tracer = provider.get_tracer("kaa-gateway", __version__)
        self._timeout = timeout
        self._clock = clock
        self.traces: dict[bytes, MessageTrace] = {}
        """What is under way, by correlation ID, the oldest first."""
        self.dropped = 0

    def gap(self) -> int:
        """How many messages on the next one is that is traced: as if each was drawn by lot."""
        if self._ratio >= 1:
            return 1
        return 1 + int(math.log1p(-random.random()) / math.log1p(-self._ratio))

    def begin(
        self,
        correlation_id: bytes,
        protocol: str,
        app_version: str,
        extension: str,
        payload_size: int,
        awaits_answer: bool,
        waited: float,
    ) -> MessageTrace | None:
        """The trace of a message that came `waited` seconds ago; None if too many are under way."""
        if len(self.traces) >= UNDER_WAY_MAX:
            self.dropped += 1
            return None
        subject = subjects.service(extension, "esp", subjects.CLIENT_DATA)
        span = self._tracer.start_span(
            f"publish {subject}",
            context=Context(),
            kind=SpanKind.PRODUCER,
            attributes={
                "messaging.system": "nats",
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.destination.name": subject,
                "messaging.message.conversation_id": correlation_id.decode(),
                "messaging.message.body.size": payload_size,
                "kaa.protocol": protocol,
                "kaa.application.version": app_version,
                "kaa.extension.instance": extension,
            },
            start_time=time.time_ns() - int(waited * 1e9),
        )
        trace = self.traces[correlation_id] = MessageTrace(
            self, span, correlation_id, self._clock() + self._timeout, awaits_answer=awaits_answer
        )
        return trace

    def expire(self) -> None:
        """Call a few times a second: ends what has been under way for too long."""
        now = self._clock()
        for trace in list(self.traces.values()):
            if trace.deadline > now:
                break
            trace.failed(TIMEOUT)

    def end_all(self) -> None:
        """The gateway stops."""
        for trace in list(self.traces.values()):
            trace.failed(SHUTDOWN)


class CountingExporter(SpanExporter):
    """Another exporter, with counts of what became of the spans that it was given. In the exporting thread."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        self.exported = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; waits for the collector, for as long as OTEL_EXPORTER_OTLP_TIMEOUT says."""
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
        """See SpanExporter: what is under way is given up."""
        self._exporter.shutdown()


class BoundedProcessor(BatchSpanProcessor):
    """Queues spans for an exporter that runs in a thread of its own, and counts those that there is no room for."""

    def __init__(self, exporter: CountingExporter, queue_max: int, batch_max: int) -> None:
        super().__init__(exporter, max_queue_size=queue_max, max_export_batch_size=min(batch_max, queue_max))
        self._exporter = exporter
        self._accepted = 0
        self.queue_max = queue_max
        self.dropped = 0

    def waiting(self) -> int:
        """Spans that have not left: queued, or being sent."""
        return self._accepted - self._exporter.exported - self._exporter.failed

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span; never waits."""
        if self.waiting() >= self.queue_max:
            self.dropped += 1
            return
        self._accepted += 1
        super().on_end(span)


class Tracing:
    """All that tracing is in one worker: `tracer` is for the native side, the rest counts and stops it."""

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

    def counts(self) -> dict[str, int]:
        """What became of spans, by outcome."""
        return {
            "exported": self.exporter.exported,
            "failed": self.exporter.failed,
            "dropped": self.processor.dropped + self.tracer.dropped,
        }

    async def stop(self) -> None:
        """Send what is left, for a moment, then give up."""
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
    """Who exports: as the configuration says, else OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, else the service."""
    resource = Resource.create(
        {"service.name": name, "service.version": __version__, "service.instance.id": replica_id}
    ).merge(OTELResourceDetector().detect())
    if settings.service_name:
        resource = resource.merge(Resource({"service.name": settings.service_name}))
    return resource
