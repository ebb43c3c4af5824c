"""The memory that a worker's unfinished packets and requests take together: what is counted, refused, and given back.

Source: docs/configuration.md, kaa.kpc.limits.input-memory.
"""

from collections.abc import Iterator

import pytest
from kaa_bench.mqtt_packets import Publish, encode
from kaa_gateway.config.keys import Http
from kaa_gateway.kp.pending import PendingRequests
from kaa_gateway.net.input_memory import InputMemory
from kaa_gateway.wire.esp import ExtensionData, encode_extension_data

from tests.support.http_server import http_server
from tests.unit.kp.device_double import DEVICE_HOST, Peer
from tests.unit.kp.worker_double import APP, WorkerDouble

BOUND = 10_000
"""One buffer of 8 KiB, and not two."""
TOPIC = f"kp1/{APP}/tsx/t"
LARGE = encode(Publish(TOPIC, bytes(7000), 1, 1))
SMALL = encode(Publish(TOPIC, bytes(3000), 1, 1))


@pytest.fixture
def memory() -> InputMemory:
    return InputMemory(BOUND)


@pytest.fixture
def mqtt(memory: InputMemory) -> Iterator[WorkerDouble]:
    with WorkerDouble() as worker:
        worker.mqtt.limit(memory)
        yield worker


@pytest.fixture
def http(memory: InputMemory) -> Iterator[WorkerDouble]:
    with WorkerDouble() as worker:
        pending = PendingRequests(10, 10.0)
        transport = http_server(worker, pending, Http(pipelined_requests=2))
        transport.limit(memory)
        worker.listen(transport, "http")
        yield worker


class Client(Peer):
    """An HTTP client, whose bytes are handled as they are sent."""

    def __init__(self, worker: WorkerDouble) -> None:
        assert worker.listener is not None
        super().__init__(worker.listener, DEVICE_HOST)
        self._loop = worker.loop

    def send(self, data: bytes) -> None:
        super().send(data)
        self._loop.run()

    def look(self) -> bytes:
        self._loop.run()
        return super().look()


def request(size: int) -> bytes:
    """A POST whose body is to follow."""
    return f"POST /{TOPIC} HTTP/1.1\r\nHost: g\r\nContent-Length: {size}\r\n\r\n".encode()


def answer_all(worker: WorkerDouble) -> None:
    for _, data in worker.published():
        fields = (data.app_version_name, "tsx", None, data.resource_path, data.request_id, b"yes", 200, None)
        worker.deliver(encode_extension_data(*ExtensionData(data.correlation_id, 0, 0, *fields)))


def test_an_mqtt_client_that_asks_for_more_is_closed(mqtt: WorkerDouble, memory: InputMemory) -> None:
    first, second, small = (mqtt.device() for _ in range(3))
    first.send_bytes(LARGE[:5000])
    held = memory.bytes
    assert 5000 <= held <= BOUND
    second.send_bytes(LARGE[:5000])
    assert second.closed
    assert mqtt.reason("closed", "mqtt_input_memory_full") == 1
    small.send_bytes(SMALL[:2900])  # below what is counted
    assert not small.closed
    assert memory.bytes == held
    small.send_bytes(SMALL[2900:])
    first.send_bytes(LARGE[5000:])
    assert [len(data.payload) for _, data in mqtt.published()] == [3000, 7000]
    assert memory.bytes == 0


def test_what_an_mqtt_client_held_is_given_back_when_it_goes(mqtt: WorkerDouble, memory: InputMemory) -> None:
    for _ in range(3):
        device = mqtt.device()
        device.send_bytes(LARGE[:5000])
        assert memory.bytes > 0
        device.drop()
        assert memory.bytes == 0
    assert mqtt.reason("closed", "mqtt_input_memory_full") == 0


def test_an_http_client_that_asks_for_more_is_answered(http: WorkerDouble, memory: InputMemory) -> None:
    first, second, small = (Client(http) for _ in range(3))
    first.send(request(7000) + bytes(5000))
    held = memory.bytes
    assert 5000 <= held <= BOUND
    second.send(request(7000) + bytes(5000))
    answer = second.look()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 1\r\n" in answer
    assert b"\r\nConnection: close\r\n" in answer
    assert http.reason("closed", "input_memory_full") == 1
    small.send(request(3000) + bytes(2900))
    assert memory.bytes == held
    small.send(bytes(100))
    first.send(bytes(2000))
    assert [len(data.payload) for _, data in http.published()] == [3000, 7000]
    assert memory.bytes == 0
    for client in (first, second, small):
        client.go()


def test_what_an_http_client_held_is_given_back_when_it_goes(http: WorkerDouble, memory: InputMemory) -> None:
    for _ in range(3):
        client = Client(http)
        client.send(request(7000) + bytes(5000))
        assert memory.bytes > 0
        client.go()
        http.loop.run()
        assert memory.bytes == 0


def test_an_http_client_with_requests_under_way_has_their_answers_first(
    http: WorkerDouble, memory: InputMemory
) -> None:
    memory.set_limit(5000)
    client = Client(http)
    client.send(request(1) + b"a" + request(1) + b"b" + request(6000) + bytes(5000))
    assert http.reason("closed", "input_memory_full") == 1
    assert memory.bytes == 0
    answer_all(http)
    answers = client.look()
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert client.closed
    client.go()
