"""The limits of what is kept for clients that are offline: number, bytes and age; the longest offline goes first."""

from collections.abc import Iterator

import pytest
from kaa_bench.mqtt_packets import Connack, Connect, Publish, Subscribe
from kaa_gateway.wire.esp import ExtensionData, encode_extension_data

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import APP, WorkerDouble

KIB = 1024
STORED_BYTES = 256 * KIB
FILTER_SIZE = 1000
EXPIRED_PER_CALL = 500
PUSH = ExtensionData("push", 0, 0, APP, "dcx", "endpoint-t", "/json", None, b"news", 200, None)


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble(stored_bytes=STORED_BYTES) as double:
        yield double


def leave(worker: WorkerDouble, client_id: str, filters: int = 0) -> None:
    """A persistent session with so many topic filters of 1000 bytes, whose client goes offline."""
    device = worker.device(client_id, clean=False)
    for number in range(filters):
        device.send(Subscribe(1, ((f"{number}/".ljust(FILTER_SIZE, "x"), 1),)))
    device.drop()


def is_kept(worker: WorkerDouble, client_id: str) -> bool:
    device = worker.unconnected()
    device.send(Connect(client_id, False, 0))
    worker.admit()
    (packet, *_) = device.received()
    device.drop()
    assert isinstance(packet, Connack)
    return packet.session_present


def test_subscriptions_of_absent_clients_are_bounded_in_bytes(worker: WorkerDouble) -> None:
    """An anonymous client that comes with ever new identifiers, and as many filters as it may have."""
    for number in range(10):
        leave(worker, f"id-{number}", 90)
        assert worker.stored.offline_bytes() <= STORED_BYTES
    assert worker.stored.offline_count() == 2
    assert worker.reason("dropped", "session_evicted") == 8
    assert [is_kept(worker, f"id-{number}") for number in (9, 8, 7)] == [True, True, False]


def test_a_session_beyond_the_limit_is_not_kept(worker: WorkerDouble) -> None:
    with WorkerDouble(stored_bytes=32 * KIB) as tight:
        leave(tight, "small", 1)
        leave(tight, "large", 90)
        assert (tight.stored.offline_count(), tight.stored.offline_bytes()) == (0, 0)
        assert tight.sessions.count == 0


def test_what_is_queued_meanwhile_counts(worker: WorkerDouble) -> None:
    """The longest offline goes for it; the one that is offline longest gets no more itself."""
    leave(worker, "first", 10)
    device = identified(worker, "second")
    device.drop()
    leave(worker, "third", 10)
    for number in range(9):
        worker.deliver(encode_extension_data(*PUSH._replace(payload=bytes([number]) * (30 * KIB))))
        assert worker.stored.offline_bytes() <= STORED_BYTES
    assert worker.reason("dropped", "session_evicted") == 1
    assert worker.reason("dropped", "session_queue_full") == 1
    assert not is_kept(worker, "first")
    assert is_kept(worker, "third")


def identified(worker: WorkerDouble, client_id: str) -> Device:
    device = worker.device(client_id, clean=False)
    device.send(Subscribe(1, ((f"kp1/{APP}/dcx/t/#", 1),)))
    worker.identify()
    device.received()
    return device


def test_a_client_that_is_back_is_not_counted(worker: WorkerDouble) -> None:
    leave(worker, "id", 20)
    before = worker.stored.offline_bytes()
    assert before > 20 * FILTER_SIZE
    device = worker.device("id", clean=False)
    assert (worker.stored.offline_count(), worker.stored.offline_bytes()) == (0, 0)
    device.drop()
    assert worker.stored.offline_bytes() == before
    device = worker.device("id", clean=True)
    assert (worker.stored.offline_count(), worker.stored.offline_bytes()) == (0, 0)


def test_messages_in_flight_count(worker: WorkerDouble) -> None:
    device = identified(worker, "id")
    worker.deliver(encode_extension_data(*PUSH._replace(payload=bytes(50 * KIB))))
    assert isinstance(device.received()[0], Publish)
    device.drop()
    assert worker.stored.offline_bytes() > 50 * KIB


def test_sessions_expire_in_slices() -> None:
    """An hour after an outage, so that the event loop is not stopped by all of them at once."""
    with WorkerDouble(stored_bytes=2**30) as worker:
        for number in range(100):
            leave(worker, f"id-{number}")
        assert worker.stored.expire(worker.loop.now + 3599) is False
        assert worker.stored.offline_count() == 100
        assert worker.stored.expire(worker.loop.now + 3601) is False
        assert (worker.stored.offline_count(), worker.stored.offline_bytes()) == (0, 0)
        assert worker.reason("dropped", "session_expired") == 100
