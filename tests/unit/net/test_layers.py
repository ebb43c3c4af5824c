"""Half-close and time-outs while the gateway does not read, the same over TCP, TLS, WebSocket and both."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kaa_bench.mqtt_packets import Connect, Pingreq, Publish, encode
from kaa_gateway.config.keys import Http
from kaa_gateway.kp.pending import PendingRequests

from tests.support.http_server import http_server
from tests.unit.kp.worker_double import APP, WorkerDouble
from tests.unit.net.layered import LAYERS, Client, listen

TOPIC = f"kp1/{APP}/tsx/json"
CONNACK, PUBACK, PINGRESP = b"\x20\x02\x00\x00", b"\x40\x02\x00\x07", b"\xd0\x00"
ENCRYPTED = ("tls", "wss")


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble(pending_max=2_000) as worker:
        yield worker


def connections(worker: WorkerDouble) -> int:
    assert worker.listener is not None
    return worker.listener.connection_count()


def mqtt(worker: WorkerDouble, layer: str, directory: Path, keep_alive: int = 0) -> Client:
    listen(worker, layer, worker.mqtt, "mqtt", directory)
    client = Client(worker, layer)
    client.send(encode(Connect("", True, keep_alive, None)))
    worker.admit()
    assert client.look().endswith(CONNACK)
    return client


def publish(size: int = 4) -> bytes:
    return encode(Publish(TOPIC, b"x" * size, 1, 7))


@pytest.mark.parametrize("layer", LAYERS)
def test_an_acknowledgement_reaches_a_device_that_has_sent_fin(
    worker: WorkerDouble, tmp_path: Path, layer: str
) -> None:
    client = mqtt(worker, layer, tmp_path)
    client.send(publish())
    client.half_close()
    assert client.look() == b""
    assert not client.closed
    worker.confirm()
    assert PUBACK in client.look()
    assert client.closed
    assert client.notified == (layer in ENCRYPTED)
    assert connections(worker) == 0
    client.go()


@pytest.mark.parametrize("layer", ENCRYPTED)
def test_an_acknowledgement_reaches_a_device_that_has_sent_close_notify(
    worker: WorkerDouble, tmp_path: Path, layer: str
) -> None:
    """RFC 8446 section 6.1: the other side may still write."""
    client = mqtt(worker, layer, tmp_path)
    client.send(publish())
    client.end_tls()
    assert client.look() == b""
    assert not client.closed
    worker.confirm()
    assert PUBACK in client.look()
    assert client.notified
    client.go()
    assert connections(worker) == 0


@pytest.mark.parametrize("layer", ENCRYPTED)
def test_close_notify_of_a_device_that_is_owed_nothing_ends_the_connection(
    worker: WorkerDouble, tmp_path: Path, layer: str
) -> None:
    client = mqtt(worker, layer, tmp_path)
    client.end_tls()
    client.look()
    assert client.notified
    client.go()
    assert connections(worker) == 0


@pytest.mark.parametrize("end", ["fin", "close_notify"])
def test_a_response_reaches_a_client_of_https_that_has_ended_its_side(
    worker: WorkerDouble, tmp_path: Path, end: str
) -> None:
    server = http_server(worker, PendingRequests(10, 10.0), Http(pipelined_requests=2))
    listen(worker, "tls", server, "http", tmp_path)
    client = Client(worker, "tls")
    request = f"POST /{TOPIC}?answer=no HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1".encode()
    client.send(3 * request)
    if end == "fin":
        client.half_close()
    else:
        client.end_tls()
    answers = b""
    for _ in range(10):
        worker.confirm()
        answers += client.look()
    assert answers.count(b"HTTP/1.1 200 ") == 3
    assert client.notified
    client.go()
    assert connections(worker) == 0


@pytest.mark.parametrize("layer", LAYERS)
def test_a_device_that_is_not_read_for_want_of_nats_is_not_silent(
    worker: WorkerDouble, tmp_path: Path, layer: str
) -> None:
    client = mqtt(worker, layer, tmp_path, keep_alive=4)
    for _ in range(4):
        client.send(publish(1_000))
    client.send(encode(Pingreq()))
    for _ in range(20):
        worker.loop.pass_time(1)
        worker.check()
    assert worker.reason("closed", "mqtt_keep_alive_timeout") == 0
    assert PINGRESP not in client.look(), "it was not read"
    worker.confirm()
    worker.confirm()
    assert PINGRESP in client.look()
    for _ in range(4):
        worker.loop.pass_time(1)
        worker.check()
    assert not client.closed, "its time has begun anew"
    for _ in range(4):
        worker.loop.pass_time(1)
        worker.check()
    assert worker.reason("closed", "mqtt_keep_alive_timeout") == 1
    client.go()


@pytest.mark.parametrize("layer", LAYERS)
def test_a_device_beyond_its_rate_is_not_silent(tmp_path: Path, layer: str) -> None:
    with WorkerDouble(admission={"byte_rate": 3_000}) as worker:
        client = mqtt(worker, layer, tmp_path, keep_alive=4)
        client.send(publish(60_000) + encode(Pingreq()))
        for _ in range(20):  # which it takes at that rate
            worker.loop.pass_time(1)
            worker.check()
        assert worker.reason("closed", "mqtt_keep_alive_timeout") == 0
        client.go()


@pytest.mark.parametrize("layer", ["tcp", "tls"])
def test_a_client_beyond_its_rate_is_not_a_slow_sender(tmp_path: Path, layer: str) -> None:
    """Its body takes half a minute because the gateway reads it so slowly; the limit of a request is 5 s."""
    with WorkerDouble(admission={"byte_rate": 20_000}) as worker:
        server = http_server(worker, PendingRequests(10, 10.0), Http(read_timeout=5.0))
        listen(worker, layer, server, "http", tmp_path)
        client = Client(worker, layer)
        body = b"y" * 600_000
        head = f"POST /{TOPIC}?answer=no HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        client.send(head + body)
        answers, seconds = b"", 0
        while not answers:
            worker.loop.pass_time(1)
            worker.check()
            worker.confirm()
            client.flush()
            answers += client.look()
            seconds += 1
        assert answers.startswith(b"HTTP/1.1 200 ")
        assert seconds > 10
        client.go()
