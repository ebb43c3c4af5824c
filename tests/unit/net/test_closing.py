"""How a connection ends: half-close, FIN after the last answer, no reset over bytes that nobody reads any more."""

from collections.abc import Iterator

import pytest
from kaa_bench.mqtt_packets import Connect, Puback, Publish, Pubrec, encode
from kaa_gateway.config.keys import Http
from kaa_gateway.kp.pending import PendingRequests

from tests.support.http_server import http_server
from tests.unit.kp.device_double import DEVICE_HOST, Peer
from tests.unit.kp.worker_double import APP, WorkerDouble

TOPIC = f"kp1/{APP}/tsx/json"
DISCONNECT = b"\xe0\x00"


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as worker:
        yield worker


def connections(worker: WorkerDouble) -> int:
    assert worker.listener is not None
    return worker.listener.connection_count()


@pytest.mark.parametrize(("qos", "answer"), [(1, Puback(7)), (2, Pubrec(7))])
def test_acknowledgements_reach_a_client_that_has_closed_its_side(
    worker: WorkerDouble, qos: int, answer: object
) -> None:
    """MQTT 3.1.1 sections 4.3.2 and 4.3.3; RFC 9293 section 3.6."""
    device = worker.device()
    device.send(Publish(TOPIC, b"last", qos, 7))
    device.half_close()
    assert not device.closed
    assert device.received() == []
    worker.confirm()
    assert device.received() == [answer]
    assert device.closed
    assert connections(worker) == 0


def test_what_came_before_admission_is_handled_after_a_half_close(worker: WorkerDouble) -> None:
    device = worker.unconnected()
    device.send_bytes(encode(Connect("", True, 0)) + encode(Publish(TOPIC, b"last", 1, 7)))
    device.half_close()
    worker.admit()
    worker.loop.run()
    worker.confirm()
    assert device.received()[-1] == Puback(7)
    assert device.closed
    assert connections(worker) == 0


def test_a_client_that_is_owed_nothing_is_closed_at_once(worker: WorkerDouble) -> None:
    device = worker.device()
    device.half_close()
    device.received()
    assert device.closed
    assert connections(worker) == 0


def test_acknowledgements_that_never_come_are_not_waited_for_for_ever(worker: WorkerDouble) -> None:
    device = worker.device()
    device.send(Publish(TOPIC, b"last", 1, 7))
    device.half_close()
    for _ in range(9):
        worker.loop.pass_time(1)
        worker.check()
    assert connections(worker) == 1
    for _ in range(2):
        worker.loop.pass_time(1)
        worker.check()
    assert connections(worker) == 0


def test_what_comes_after_the_end_is_discarded_until_the_client_closes(worker: WorkerDouble) -> None:
    device = worker.device()
    device.send_bytes(DISCONNECT)
    device.received()
    assert device.closed  # FIN has come ...
    assert worker.sessions.count == 0
    assert connections(worker) == 1
    device.send_bytes(bytes(10_000))  # ... and no reset for what was under way
    device.half_close()
    assert connections(worker) == 0


def test_a_client_that_never_closes_is_cut_off(worker: WorkerDouble) -> None:
    device = worker.device()
    device.send_bytes(DISCONNECT)
    for _ in range(7):
        worker.loop.pass_time(1)
        worker.check()
    assert connections(worker) == 0


@pytest.fixture
def http(worker: WorkerDouble) -> WorkerDouble:
    server = http_server(worker, PendingRequests(10, 10.0), Http(pipelined_requests=2))
    worker.listen(server, "http")
    return worker


def post(number: int) -> bytes:
    return (
        f"POST /kp1/{APP}/tsx/{number}?answer=no HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1".encode()
    )


@pytest.mark.parametrize("count", [1, 2, 5])
def test_responses_reach_a_client_that_has_closed_its_side(http: WorkerDouble, count: int) -> None:
    """RFC 9112 section 9.6: more requests than the pipeline holds, too."""
    assert http.listener is not None
    client = Peer(http.listener, DEVICE_HOST)
    client.send(b"".join(post(number) for number in range(count)))
    client.half_close()
    http.loop.read()
    answers = b""
    for _ in range(10):
        http.confirm()
        http.loop.read()
        answers += client.look()
    assert answers.count(b"HTTP/1.1 200 ") == count
    assert client.closed
    assert connections(http) == 0
    client.go()


def test_half_of_a_request_is_not_waited_for(http: WorkerDouble) -> None:
    assert http.listener is not None
    client = Peer(http.listener, DEVICE_HOST)
    client.send(post(1)[:-1])
    http.loop.read()
    client.half_close()
    http.loop.read()
    client.look()
    assert client.closed
    assert connections(http) == 0
    client.go()
