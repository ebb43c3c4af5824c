"""Traces for OpenTelemetry: a span around each handler whose message the gateway traces. Needs the extra `tracing`.

    tracing = Tracing()
    tracing.watch(extension)

The gateway decides which messages are traced; other messages have no span, and no task. A span is current while its
handler runs, so spans of instrumented libraries become its children. A request of a batch handler has a span too, but
the handler does not run in it: it handles several requests.

Source: W3C Trace Context; OpenTelemetry semantic conventions, "Messaging spans".
"""

from kaa_gateway import __version__
from kaa_gateway.bus import subjects
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace import TracerProvider as AnyTracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.handlers import CallNext
from kaa_ext.sdk.requests import Request, Response

SERVER_ERRORS = 500
"""The first of the status codes for errors that are not the device's fault."""
TRACE_PARENT = "traceparent"
"""The header of W3C Trace Context."""
_CONTEXT = TraceContextTextMapPropagator()


def provider_of_environment(service_name: str) -> TracerProvider:
    """Return a provider that exports over OTLP as the OTEL_* variables say; they override `service_name`."""
    resource = Resource.create({"service.name": service_name}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """Makes spans with the given provider, by default one that exports as the OTEL_* environment variables say."""

    def __init__(self, provider: AnyTracerProvider | None = None) -> None:
        provider = provider or provider_of_environment("kaa-ext")
        self._tracer = provider.get_tracer("kaa-ext", __version__)

    def watch(self, extension: Extension) -> None:
        """Trace the requests of an extension."""
        subject = subjects.service(extension.name, "esp", subjects.CLIENT_DATA)

        async def trace(request: Request, call_next: CallNext) -> Response:
            assert request.trace_parent is not None
            with self._tracer.start_as_current_span(
                f"process {subject}",
                context=_CONTEXT.extract({TRACE_PARENT: request.trace_parent}),
                kind=SpanKind.CONSUMER,
                attributes={
                    "messaging.system": "nats",
                    "messaging.operation.name": "process",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": subject,
                    "messaging.message.conversation_id": request.correlation_id,
                    "messaging.message.body.size": len(request.payload),
                    "kaa.application.version": request.app_version_name,
                    "kaa.extension.instance": extension.name,
                    "kaa.route": request.route,
                },
            ) as span:
                response = await call_next(request)
                span.set_attribute("kaa.status_code", response.status_code)
                if response.status_code >= SERVER_ERRORS:
                    span.set_attribute("error.type", str(response.status_code))
                    span.set_status(StatusCode.ERROR)
                return response

        extension.middleware(trace, only_traced=True)
