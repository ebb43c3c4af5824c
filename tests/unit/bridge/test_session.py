"""The session of a bridged endpoint in a worker double: what it confirms, refuses and sends."""

from collections.abc import Iterator
from typing import Any

import pytest
from kaa_gateway.bridge.session import BridgedEndpoint, endpoint_key_of
from kaa_gateway.wire import esp

from tests.unit.kp.worker_double import APP, WorkerDouble

KEY = (APP.encode(), b"t1")
TOPIC = b"kp1/app_v1/dcx/t1/json"


class Events:
    """The bridge, as the session sees it."""

    def __init__(self) -> None:
        self.confirmed_references: list[Any] = []
        self.sent: list[tuple[bytes, bytes]] = []
        self.resumptions = 0
        self.ended_sessions: list[BridgedEndpoint] = []
        self.full = False

    def confirmed(self, reference: Any) -> None:
        self.confirmed_references.append(reference)

    def resumed(self) -> None:
        self.resumptions += 1

    def ended(self, session: BridgedEndpoint) -> None:
        self.ended_sessions.append(session)

    def send(self, topic: bytes, payload: bytes) -> bool:
        if not self.full:
            self.sent.append((topic, payload))
        return not self.full


class Bridged(WorkerDouble):
    """A worker with one bridged endpoint."""

    def __init__(self, **bounds: Any) -> None:
        super().__init__(**bounds)
        self.events = Events()
        self.session = BridgedEndpoint(self.uplink, self.sessions, self.counters, "bridge", self.events, KEY)

    def push(self, payload: bytes, status: int = 200) -> None:
        datum = esp.encode_extension_data(
            "", 0, 0, None, "cex", "endpoint-t1", "/command/x", None, payload, status, None
        )
        self.deliver(datum)


@pytest.fixture
def worker() -> Iterator[Bridged]:
    with Bridged() as worker:
        yield worker


def identified(worker: Bridged) -> None:
    assert worker.session.publish(TOPIC, b"first", 0, None)
    worker.identify()
    worker.published()


def test_the_endpoint_that_a_topic_names(worker: Bridged) -> None:
    assert endpoint_key_of(worker.router, TOPIC + b"/7") == KEY
    assert endpoint_key_of(worker.router, b"kp1/app_v1/tsx/7") is None
    assert endpoint_key_of(worker.router, b"plant/x") is None


def test_a_message_is_confirmed_when_nats_has_it(worker: Bridged) -> None:
    identified(worker)
    assert worker.session.publish(TOPIC + b"/7", b"1", 5000, "m1")
    (published,) = worker.published()
    assert (published.data.request_id, published.data.timeout) == (7, 5000)
    assert worker.events.confirmed_references == []
    worker.confirm()
    assert worker.events.confirmed_references == ["m1"]
    worker.answer_to(published.data, b"done")
    assert worker.events.sent == [(b"kp1/app_v1/dcx/t1/json/7/status", b"done")]
    assert worker.counters.by_protocol()["messages_in"]["bridge"] == 2


def test_what_is_refused_is_told_and_confirmed(worker: Bridged) -> None:
    topic = b"kp1/app_v1/nobody/t1/json"
    assert worker.session.publish(topic, b"", 0, "m1")
    assert worker.session.publish(topic, b"", 0, None)
    worker.confirm()
    assert worker.events.confirmed_references == ["m1"]
    ((told, payload),) = worker.events.sent
    assert told == topic + b"/error"
    assert b'"statusCode":404' in payload


def test_pushes_go_to_the_owner_only(worker: Bridged) -> None:
    identified(worker)
    worker.push(b"1")
    worker.push(b"", 500)
    assert worker.events.sent == [
        (b"kp1/app_v1/cex/t1/command/x/status", b"1"),
        (
            b"kp1/app_v1/cex/t1/command/x/error",
            b'{"statusCode":500,"reasonPhrase":"Internal Server Error"}',
        ),
    ]
    worker.session.owned = False
    worker.push(b"2")
    worker.session.owned = True
    worker.events.full = True
    worker.push(b"3")
    assert len(worker.events.sent) == 2
    assert worker.reason("dropped", "no_session") == 2


def test_a_busy_uplink() -> None:
    with Bridged(pending_max=500) as worker:
        identified(worker)
        number = 0
        while worker.session.publish(TOPIC, b"x" * 100, 0, number):
            number += 1
        assert 0 < number < 20
        worker.confirm()
        assert worker.events.confirmed_references == list(range(number))
        assert worker.events.resumptions == 1
        assert worker.session.publish(TOPIC, b"x", 0, number)


def test_the_end(worker: Bridged) -> None:
    identified(worker)
    worker.session.disconnect("disconnected_by_operator")
    assert worker.events.ended_sessions == [worker.session]
    assert worker.reason("closed", "disconnected_by_operator") == 1
    worker.push(b"1")
    assert worker.events.sent == []
    assert worker.sessions.count == 0
