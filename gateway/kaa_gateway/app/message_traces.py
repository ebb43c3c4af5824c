"""Spans of messages: which messages are traced, and what their spans say.

Native code counts messages down to the next one to trace, writes its `traceparent` to NATS, and tells what becomes of
it (kp.uplink, kp.downlink, bus.link, bus.durable). It knows nothing of OpenTelemetry; this module does.

Source: W3C Trace Context; OpenTelemetry semantic conventions, "Messaging spans".
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kaa_gateway import __version__
from kaa_gateway.bus import subjects

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

UNDER_WAY_MAX = 10_000
"""Traces whose message is not confirmed or answered yet; a message beyond is not traced."""
SERVER_ERRORS = 500
"""Status codes from here on mean a failure that is not the device's."""
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
        """Note that NATS, or the stream, has the message."""
        self._blocks -= 1
        if self._blocks == 0 and self._span.is_recording():
            self._span.add_event("confirmed")
            if not self._awaits_answer:
                self._end()

    def repeated(self) -> None:
        """Note that the message was published again, which is to be confirmed as well."""
        self._blocks += 1

    def answered(self, status_code: int) -> None:
        """End the span: the device's session has taken the extension's answer."""
        self._span.set_attribute("kaa.status_code", status_code)
        if status_code >= SERVER_ERRORS:
            self._set_error(str(status_code))
        self._end()

    def failed(self, reason: str) -> None:
        """End the span with an error: `reason` is one of docs/reasons.md."""
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
    """Traces each message with a probability. A trace that takes longer than `timeout` seconds fails."""

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
        """Traces under way by correlation ID, the oldest first."""
        self.dropped = 0

    def gap(self) -> int:
        """Return the number of messages until the next one to trace, drawn as if by lot for each message."""
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
        parent: bytes | None = None,
    ) -> MessageTrace | None:
        """Begin the trace of a message that came `waited` seconds ago. Return None if too many are under way.

        `parent` is the `traceparent` of a trace that the device has begun, which this one then continues.
        """
        if len(self.traces) >= UNDER_WAY_MAX:
            self.dropped += 1
            return None
        subject = subjects.service(extension, "esp", subjects.CLIENT_DATA)
        span = self._tracer.start_span(
            f"publish {subject}",
            context=_context_of(parent),
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
        """Fail the traces that have been under way for too long; call a few times a second."""
        now = self._clock()
        for trace in list(self.traces.values()):
            if trace.deadline > now:
                break
            trace.failed(TIMEOUT)

    def end_all(self) -> None:
        """Fail all traces, because the gateway stops."""
        for trace in list(self.traces.values()):
            trace.failed(SHUTDOWN)


def _context_of(parent: bytes | None) -> Context:
    """Return the context that a `traceparent` names; an empty one if there is none, or it is malformed."""
    if parent is None:
        return Context()
    carrier = {"traceparent": parent.decode("utf-8", "replace")}
    return TraceContextTextMapPropagator().extract(carrier, Context())
