"""Which messages are traced, what their ClientData carries to NATS, and what the tracer is told of them.

Source: W3C Trace Context, "traceparent"; ADR-4 "NATS Message Headers".
"""

from collections.abc import Iterator

import pytest
from kaa_gateway.bus import subjects
from kaa_gateway.wire.esp import encode_client_data, encode_extension_data

from tests.unit.kp.worker_double import APP, WorkerDouble

DCX = subjects.service("dcx", "esp", subjects.CLIENT_DATA)
FIELD = b"traceparent: 00-%032x-b7ad6b7169203331-01\r\n"
REPLICA = subjects.replica("dcx-1", "esp", subjects.CLIENT_DATA)


class RecordedTrace:
    def __init__(self, number: int) -> None:
        self.field = FIELD % number
        self.told: list[str] = []

    def confirmed(self) -> None:
        self.told.append("confirmed")

    def repeated(self) -> None:
        self.told.append("repeated")

    def answered(self, status_code: int) -> None:
        self.told.append(f"answered {status_code}")

    def failed(self, reason: str) -> None:
        self.told.append(f"failed {reason}")


class RecordingTracer:
    """Traces the messages after so many that are not, for each of `gaps`, and then all."""

    def __init__(self, worker: WorkerDouble, *gaps: int) -> None:
        self._gaps = iter(gaps)
        self.begun: list[tuple[object, ...]] = []
        self.parents: list[bytes | None] = []
        self.traces: list[RecordedTrace] = []
        self.by_correlation_id: dict[bytes, RecordedTrace] = {}
        self.full = False
        worker.uplink.set_tracer(self)
        worker.downlink.set_traces(self.by_correlation_id)

    def gap(self) -> int:
        return next(self._gaps, 1)

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
    ) -> RecordedTrace | None:
        self.parents.append(parent)
        self.begun.append((protocol, app_version, extension, payload_size, awaits_answer))
        if self.full:
            return None
        trace = RecordedTrace(len(self.traces))
        self.traces.append(trace)
        self.by_correlation_id[correlation_id] = trace
        return trace


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as double:
        yield double


def header(number: int) -> bytes:
    return b"NATS/1.0\r\n" + FIELD % number + b"\r\n"


def answer(correlation_id: str, status_code: int = 200) -> bytes:
    return encode_extension_data(
        correlation_id, 0, 0, APP, "dcx", "endpoint-t", "/json", 7, b"", status_code, None
    )


def test_the_messages_whose_turn_it_is_carry_their_trace_and_no_others(worker: WorkerDouble) -> None:
    tracer = RecordingTracer(worker, 3, 2)
    device = worker.device()
    for number in range(7):
        device.publish(f"kp1/{APP}/dcx/t/json/7", b"%d" % number)
        worker.identify()
    found = worker.published_with_headers()
    assert [header for header, _ in found] == [b"", b"", header(0), b"", header(1), header(2), header(3)]
    assert [publication.data.payload for _, publication in found] == [b"%d" % n for n in range(7)]
    assert {publication.subject for _, publication in found} == {DCX}
    assert tracer.begun == [("mqtt", APP, "dcx", 1, True)] * 4
    assert [key.decode() for key in tracer.by_correlation_id] == [
        found[n][1].data.correlation_id for n in (2, 4, 5, 6)
    ]


def test_a_message_that_wants_no_answer_says_so(worker: WorkerDouble) -> None:
    tracer = RecordingTracer(worker)
    worker.device().publish(f"kp1/{APP}/tsx/time", b"payload")
    assert len(worker.published_with_headers()) == 1
    assert tracer.begun == [("mqtt", APP, "tsx", 7, False)]


def test_when_too_many_are_under_way_a_message_goes_without(worker: WorkerDouble) -> None:
    tracer = RecordingTracer(worker)
    tracer.full = True
    worker.device().publish(f"kp1/{APP}/tsx/time")
    ((_, data),) = worker.published()
    assert data.resource_path == "/time"
    assert len(tracer.begun) == 1


def test_a_trace_hears_of_confirmation_and_answer(worker: WorkerDouble) -> None:
    tracer = RecordingTracer(worker, 1, 2)
    device = worker.device()
    for _ in range(3):
        device.publish(f"kp1/{APP}/dcx/t/json/7", b"", 1, 1)
        worker.identify()
    first, second, third = worker.published_with_headers()
    traced, _ = tracer.traces
    assert traced.told == []
    worker.confirm()
    worker.confirm()
    assert traced.told == ["confirmed"]
    worker.deliver(answer(second[1].data.correlation_id))
    worker.deliver(answer(first[1].data.correlation_id, 201))
    assert traced.told == ["confirmed", "answered 201"]
    worker.deliver(answer(third[1].data.correlation_id, 500))
    assert tracer.traces[1].told == ["confirmed", "answered 500"]
    assert len(tracer.traces) == 2


def test_a_server_without_headers_gets_none(worker: WorkerDouble) -> None:
    tracer = RecordingTracer(worker)
    worker.link.abort("for the test")
    worker.connect_nats(headers=False)
    worker.device().publish(f"kp1/{APP}/tsx/time")
    worker.published()
    worker.confirm()
    assert tracer.traces[0].told == ["confirmed"]


def test_a_message_that_fills_what_nats_takes_has_no_room_for_a_header(worker: WorkerDouble) -> None:
    tracer = RecordingTracer(worker)
    device = worker.device()
    worker.link.abort("for the test")
    worker.connect_nats(payload_max=1200)
    with_header = []
    for size in range(900, 1200, 4):
        device.publish(f"kp1/{APP}/tsx/time", bytes(size))
        for found, publication in worker.published_with_headers():
            assert len(found) + len(encode_client_data(*publication.data)) <= 1200
            with_header.append(bool(found))
    fits = with_header.count(True)
    assert with_header == [True] * fits + [False] * (len(with_header) - fits)
    assert 0 < fits < len(with_header) < 75, "some have no room for a header, and some are refused"
    worker.confirm()
    assert {tuple(trace.told) for trace in tracer.traces} == {("confirmed",)}


def test_what_was_written_for_a_server_with_headers_is_sent_again_without(worker: WorkerDouble) -> None:
    tracer = RecordingTracer(worker)
    device = worker.device()
    device.publish(f"kp1/{APP}/tsx/time/1", b"written", 1, 1)
    device.publish(f"kp1/{APP}/tsx/time/2", b"given up", 0)
    assert [publication.data.payload for _, publication in worker.published_with_headers()] == [
        b"written",
        b"given up",
    ]
    worker.link.abort("for the test")
    device.publish(f"kp1/{APP}/tsx/time/3", b"not written", 1, 2)
    worker.connect_nats(headers=False)
    assert [data.payload for _, data in worker.published()] == [b"written", b"not written"]
    worker.confirm()
    written, given_up, not_written = tracer.traces
    assert written.told == not_written.told == ["confirmed"]
    assert given_up.told[0] == "failed abandoned"
    assert [packet.packet_id for packet in device.received()] == [1, 2]


def test_what_is_sent_again_keeps_its_trace(worker: WorkerDouble) -> None:
    tracer = RecordingTracer(worker)
    worker.device().publish(f"kp1/{APP}/tsx/time", b"", 1, 1)
    before = worker.published_with_headers()
    worker.link.abort("for the test")
    worker.connect_nats()
    assert worker.published_with_headers() == before == [(header(0), before[0][1])]
    worker.confirm()
    assert tracer.traces[0].told == ["confirmed"]


def test_a_trace_hears_that_nobody_took_its_message(worker: WorkerDouble) -> None:
    tracer = RecordingTracer(worker)
    device = worker.device()
    device.publish(f"kp1/{APP}/tsx/time/7", b"", 1, 1)
    subject = worker.published_with_headers()[0][1].subject
    worker.no_responders(subject)
    worker.confirm()
    assert tracer.traces[0].told == ["failed no_responders", "confirmed"]


def test_a_message_of_a_replica_that_is_gone_goes_to_the_instance_with_its_trace(
    worker: WorkerDouble,
) -> None:
    tracer = RecordingTracer(worker, 2)
    device = worker.device()
    device.publish(f"kp1/{APP}/dcx/t/json/7")
    worker.identify()
    ((_, data),) = worker.published()
    worker.confirm()
    worker.deliver(answer(data.correlation_id), REPLICA)
    device.publish(f"kp1/{APP}/dcx/t/json/8")
    ((to_replica, publication),) = worker.published_with_headers()
    assert (to_replica, publication.subject) == (header(0), REPLICA)
    worker.no_responders(REPLICA)
    assert worker.published_with_headers() == [(header(0), publication._replace(subject=DCX))]
    worker.confirm()
    assert tracer.traces[0].told == ["repeated", "confirmed", "confirmed"]
