"""What spans say, when they end, and that neither too many of them nor a slow collector does harm."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from kaa_gateway.app import message_traces, tracing
from kaa_gateway.app.message_traces import MessageTrace, MessageTracer
from kaa_gateway.app.span_export import BoundedProcessor, CountingExporter
from kaa_gateway.app.tracing import Tracing
from kaa_gateway.config.keys import Tracing as Settings
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tests.support.esp import until

ID = b"abcdef00-0000-8000-8000-000000000001"


class Traced:
    """A tracer with a clock of the test's, and the spans that have ended."""

    def __init__(self, ratio: float = 1.0) -> None:
        self.now = 100.0
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = MessageTracer(ratio, provider, 30.0, lambda: self.now)

    def begin(
        self, correlation_id: bytes = ID, *, awaits_answer: bool = False, waited: float = 0.0
    ) -> MessageTrace:
        trace = self.tracer.begin(correlation_id, "mqtt", "app_v1", "dcx", 5, awaits_answer, waited)
        assert trace is not None
        return trace

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())


@pytest.fixture
def traced() -> Traced:
    return Traced()


def kinds(spans: list[ReadableSpan]) -> list[object]:
    """The error of each span, or None."""
    for span in spans:
        failed = span.status.status_code is StatusCode.ERROR
        assert failed == ("error.type" in (span.attributes or {}))
    return [(span.attributes or {}).get("error.type") for span in spans]


def test_a_span_says_what_the_message_is_and_its_context_goes_with_it(traced: Traced) -> None:
    trace = traced.begin(waited=2.5)
    trace.confirmed()
    (span,) = traced.ended
    assert span.name == "publish kaa.v1.service.dcx.esp.ClientData"
    assert dict(span.attributes or {}) == {
        "messaging.system": "nats",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "kaa.v1.service.dcx.esp.ClientData",
        "messaging.message.conversation_id": ID.decode(),
        "messaging.message.body.size": 5,
        "kaa.protocol": "mqtt",
        "kaa.application.version": "app_v1",
        "kaa.extension.instance": "dcx",
    }
    context = span.get_span_context()
    assert context is not None
    assert trace.field == b"traceparent: 00-%032x-%016x-%02x\r\n" % (
        context.trace_id,
        context.span_id,
        context.trace_flags,
    )
    assert context.trace_flags.sampled
    assert span.parent is None
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time >= 2_500_000_000, "it began when the message came"


def test_without_an_answer_to_wait_for_the_confirmation_is_the_end(traced: Traced) -> None:
    traced.begin().confirmed()
    assert [event.name for event in traced.ended[0].events] == ["confirmed"]
    assert kinds(traced.ended) == [None]
    assert traced.tracer.traces == {}


@pytest.mark.parametrize(("status", "error"), [(200, None), (404, None), (500, "500"), (503, "503")])
def test_else_the_answer_is(traced: Traced, status: int, error: str | None) -> None:
    trace = traced.begin(awaits_answer=True)
    trace.confirmed()
    assert traced.ended == []
    trace.answered(status)
    assert kinds(traced.ended) == [error]
    assert (traced.ended[0].attributes or {})["kaa.status_code"] == status
    assert traced.tracer.traces == {}


def test_what_is_published_again_is_confirmed_twice(traced: Traced) -> None:
    trace = traced.begin()
    trace.repeated()
    trace.confirmed()
    assert traced.ended == []
    trace.confirmed()
    assert len(traced.ended) == 1


def test_nothing_follows_a_failure(traced: Traced) -> None:
    trace = traced.begin()
    trace.failed("no_responders")
    trace.confirmed()
    trace.failed("not_stored")
    assert kinds(traced.ended) == ["no_responders"]
    assert traced.tracer.traces == {}


def test_what_nobody_answers_has_timed_out(traced: Traced) -> None:
    for number in range(3):
        traced.begin(b"%d" % number, awaits_answer=True)
        traced.now += 10
    traced.tracer.expire()
    assert kinds(traced.ended) == ["timeout"]
    traced.now += 9.9
    traced.tracer.expire()
    assert len(traced.ended) == 1
    traced.now += 0.1
    traced.tracer.expire()
    assert list(traced.tracer.traces) == [b"2"]
    traced.tracer.end_all()
    assert kinds(traced.ended) == ["timeout", "timeout", "shutdown"]


def test_a_message_beyond_the_bound_is_not_traced(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_traces, "UNDER_WAY_MAX", 2)
    first = traced.begin(b"1")
    traced.begin(b"2")
    assert traced.tracer.begin(b"3", "http", "app_v1", "dcx", 5, True, 0.0) is None
    assert traced.tracer.dropped == 1
    first.confirmed()
    traced.begin(b"3")


def test_messages_are_drawn_by_lot(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {Traced(1.0).tracer.gap() for _ in range(100)} == {1}
    draws = iter([0.0, 0.0099, 0.0101, 0.5, 1 - 2**-53])
    monkeypatch.setattr("random.random", lambda: next(draws))
    tracer = Traced(0.01).tracer
    # The chance of a gap of at least n + 1 is 0.99 ** n.
    assert [tracer.gap() for _ in range(5)] == [1, 1, 2, 69, 3656]


class HeldExporter(SpanExporter):
    """A collector that does not answer until it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[int] = []
        self.result = SpanExportResult.SUCCESS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.go.wait()
        self.batches.append(len(spans))
        if self.result is SpanExportResult.FAILURE and len(self.batches) % 2:
            raise OSError("a fault of the exporter")
        return self.result


@pytest.fixture
def held() -> Iterator[HeldExporter]:
    exporter = HeldExporter()
    yield exporter
    exporter.go.set()


async def test_a_collector_that_does_not_answer_costs_spans_and_nothing_else(held: HeldExporter) -> None:
    counting = CountingExporter(held)
    processor = BoundedProcessor(counting, queue_max=10, batch_max=4)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("test")
    for _ in range(25):
        tracer.start_span("span").end()
    assert (processor.waiting(), processor.dropped) == (10, 15)
    held.go.set()
    await until(lambda: processor.waiting() == 0, "the spans to leave")
    assert counting.exported == sum(held.batches) == 10
    assert max(held.batches) <= 4
    held.result = SpanExportResult.FAILURE
    for _ in range(8):
        tracer.start_span("span").end()
    await until(lambda: processor.waiting() == 0, "the spans to be given up")
    assert (counting.exported, counting.failed, processor.dropped) == (10, 8, 15)
    provider.shutdown()


async def test_the_end_does_not_wait_for_a_collector(
    held: HeldExporter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracing, "OTLPSpanExporter", lambda **_: held)
    monkeypatch.setattr(tracing, "FLUSH_TIMEOUT", 0.1)
    traces = Tracing(Settings(sample_ratio=1.0), "kpc", "replica-1", 30.0)
    traces.tracer.begin(ID, "mqtt", "app_v1", "dcx", 5, True, 0.0)
    await traces.stop()
    assert traces.processor.waiting() == 1
    assert not held.batches


@pytest.mark.parametrize(
    ("settings", "environment", "expected"),
    [
        ({}, {}, {"service.name": "kpc"}),
        ({}, {"OTEL_SERVICE_NAME": "edge"}, {"service.name": "edge"}),
        ({"service_name": "mine"}, {"OTEL_SERVICE_NAME": "edge"}, {"service.name": "mine"}),
        (
            {},
            {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,service.name=other"},
            {"deployment.environment.name": "test", "service.name": "other"},
        ),
    ],
)
async def test_who_exports(
    settings: dict[str, Any],
    environment: dict[str, str],
    expected: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "OTLPSpanExporter", lambda **_: exporter)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    traces = Tracing(Settings(**settings), "kpc", "replica-1", 30.0)
    trace = traces.tracer.begin(ID, "mqtt", "app_v1", "dcx", 5, False, 0.0)
    assert trace is not None
    trace.confirmed()
    await traces.stop()
    (span,) = exporter.get_finished_spans()
    assert expected.items() <= dict(span.resource.attributes).items()
    assert span.resource.attributes["service.instance.id"] == "replica-1"
    assert traces.counts() == {"exported": 1, "failed": 0, "dropped": 0}
