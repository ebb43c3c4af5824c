"""SUBSCRIBE and UNSUBSCRIBE of very many topic filters: linear, and the event loop goes on meanwhile."""

from collections.abc import Iterator

import pytest
from kaa_bench.mqtt_packets import (
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    encode,
)

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import WorkerDouble

MIB = 1024 * 1024
SUBSCRIPTIONS = 100
FILTERS_PER_SLICE = 512


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble(packet_size=MIB) as double:
        yield double


def send_all(worker: WorkerDouble, device: Device, data: bytes) -> None:
    for at in range(0, len(data), 65_536):
        device.send_bytes(data[at : at + 65_536])
        worker.loop.read()


def turns_until_idle(worker: WorkerDouble) -> int:
    """How often the loop calls what is due until nothing is."""
    count = 0
    while worker.loop.read() or worker.loop.turn():
        count += 1
    return count


def test_an_unsubscribe_of_a_mebibyte(worker: WorkerDouble) -> None:
    device, other = worker.device("id"), worker.device("other")
    names = [f"{number}" for number in range(SUBSCRIPTIONS)]
    device.send(Subscribe(1, tuple((name, number % 3) for number, name in enumerate(names))))
    assert device.received() == [Suback(1, tuple(number % 3 for number in range(SUBSCRIPTIONS)))]
    count = 340_000
    send_all(worker, device, encode(Unsubscribe(7, ("x",) * count)) + encode(Publish("outside", b"", 1, 9)))
    other.send(Pingreq())
    assert turns_until_idle(worker) >= count // FILTERS_PER_SLICE
    assert other.received() == [Pingresp()]
    worker.confirm()
    assert device.received() == [Unsuback(7), Puback(9)]
    device.send(Subscribe(2, (("one more", 1), (names[0], 1))))
    assert device.received() == [Suback(2, (0x80, 1))]


def test_a_subscribe_of_a_mebibyte(worker: WorkerDouble) -> None:
    """Beyond subscriptions-per-client each is refused; the others are granted as asked."""
    device, other = worker.device("id"), worker.device("other")
    count = 100_000
    filters = tuple((f"{number:x}", number % 3) for number in range(count))
    send_all(worker, device, encode(Subscribe(7, filters)))
    other.send(Pingreq())
    assert turns_until_idle(worker) >= count // FILTERS_PER_SLICE
    assert other.received() == [Pingresp()]
    (suback,) = device.received()
    assert suback.return_codes == tuple(n % 3 for n in range(SUBSCRIPTIONS)) + (0x80,) * (
        count - SUBSCRIPTIONS
    )
    device.send(Unsubscribe(8, tuple(name for name, _ in filters[:SUBSCRIPTIONS])), Subscribe(9, (("x", 2),)))
    assert device.received() == [Unsuback(8), Suback(9, (2,))]


def test_many_small_packets_in_one_read(worker: WorkerDouble) -> None:
    device = worker.device("id")
    packet = encode(Subscribe(1, (("x", 1),)))
    device.send_bytes(packet * 5000)
    assert turns_until_idle(worker) >= 5000 // FILTERS_PER_SLICE
    assert device.received() == [Suback(1, (1,))] * 5000


def test_a_client_that_goes_in_the_middle(worker: WorkerDouble) -> None:
    device = worker.device("id")
    send_all(worker, device, encode(Unsubscribe(7, ("x",) * 50_000)))
    device.drop()
    turns_until_idle(worker)
    assert worker.sessions.count == 0


def test_a_malformed_filter_at_the_end(worker: WorkerDouble) -> None:
    device = worker.device("id")
    send_all(worker, device, encode(Unsubscribe(7, ("x",) * 5000 + ("#x",))))
    turns_until_idle(worker)
    assert device.closed
    assert worker.reason("closed", "mqtt_malformed_topic_filter") == 1
