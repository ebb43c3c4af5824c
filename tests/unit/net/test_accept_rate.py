"""A reconnect storm meets a rate of accepts: connections wait in the kernel in their order, and none is refused."""

import socket
from collections.abc import Iterator

import pytest
from kaa_bench import mqtt_packets as mqtt

from tests.support.nats import HOST
from tests.unit.kp.worker_double import WorkerDouble

STORM = 40


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble(admission={"half_open_max": 10}) as worker:
        yield worker


def storm(worker: WorkerDouble, data: bytes = b"") -> list[socket.socket]:
    """Connections that have all been made, in this order, before the gateway looks."""
    assert worker.listener is not None
    clients = []
    for _ in range(STORM):
        client = socket.create_connection((HOST, worker.listener.port))
        client.sendall(data)
        clients.append(client)
    return clients


def limit(worker: WorkerDouble, rate: float) -> None:
    assert worker.listener is not None
    worker.listener.set_limits(2**20, 1000, rate)


def test_connections_beyond_the_rate_wait(worker: WorkerDouble) -> None:
    limit(worker, 50)
    assert worker.listener is not None
    clients = storm(worker)
    worker.loop.run()
    # A tenth of a second's worth at once, and as many in each tenth.
    assert worker.listener.connection_count() == 5
    for _ in range(5):
        worker.loop.pass_time(0.02)
    assert worker.listener.connection_count() <= 10
    assert worker.reason("paused", "accept_rate") > 0
    for client in clients:
        client.close()


def test_all_are_served_in_their_order_and_none_is_refused(worker: WorkerDouble) -> None:
    limit(worker, 50)
    clients = storm(worker, mqtt.encode(mqtt.Connect("", True, 0)))
    answered: list[int] = []
    for _ in range(300):
        worker.loop.pass_time(0.02)
        while worker._admissions:
            worker.admit()
            worker.loop.run()
        for number, client in enumerate(clients):
            client.setblocking(False)
            try:
                if number not in answered and client.recv(4)[:1] == b"\x20":
                    answered.append(number)
            except BlockingIOError:
                pass
        if len(answered) == STORM:
            break
    assert answered == sorted(answered)
    assert len(answered) == STORM
    assert worker.reason("closed", "half_open_connections") == 0
    for client in clients:
        client.close()


def test_peers_that_wait_for_the_gateway_are_not_refused_for_newer_ones(worker: WorkerDouble) -> None:
    limit(worker, 100_000)
    assert worker.listener is not None
    clients = storm(worker, mqtt.encode(mqtt.Connect("", True, 0)))
    for _ in range(20):
        worker.loop.pass_time(0.05)
    # The identity provider is slow: the others wait in the kernel.
    assert worker.listener.connection_count() == 10
    assert worker.reason("closed", "half_open_connections") == 0
    assert worker.reason("paused", "half_open_connections") > 0
    for _ in range(200):
        while worker._admissions:
            worker.admit()
        worker.loop.pass_time(0.05)
        if worker.listener.connection_count() == STORM:
            break
    assert worker.listener.connection_count() == STORM
    for client in clients:
        client.close()


def test_silent_peers_make_room_after_a_while(worker: WorkerDouble) -> None:
    limit(worker, 100_000)
    assert worker.listener is not None
    clients = storm(worker)
    for _ in range(10):
        worker.loop.pass_time(0.05)
    assert worker.listener.connection_count() == 10
    assert worker.reason("closed", "half_open_connections") == 0
    for _ in range(100):
        worker.loop.pass_time(0.05)
    assert worker.listener.connection_count() == 10
    assert worker.reason("closed", "half_open_connections") == STORM - 10
    for client in clients:
        client.close()


def test_another_rate_holds_from_now_on(worker: WorkerDouble) -> None:
    limit(worker, 1)
    assert worker.listener is not None
    clients = storm(worker)
    worker.loop.run()
    assert worker.listener.connection_count() == 0
    worker.loop.pass_time(1)
    assert worker.listener.connection_count() == 1
    limit(worker, 0)
    worker.loop.pass_time(1)
    worker.loop.run()
    assert worker.listener.half_open_count() == 10
    for client in clients:
        client.close()
