"""QoS 2 from a client (MQTT 3.1.1 section 4.3.3): many messages at once, and identifiers used again."""

from collections.abc import Iterator

import pytest
from kaa_bench.mqtt_packets import Pubcomp, Publish, Pubrec, Pubrel, encode
from kaa_gateway.net.input_memory import InputMemory

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import APP, WorkerDouble

TOPIC = f"kp1/{APP}/dcx/t/json"
IDENTIFIERS = 65_535
PACKETS_PER_SEND = 4000


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble(pending_max=2**24) as double:
        yield double


def publish_all(worker: WorkerDouble, device: Device, identifiers: range) -> list[object]:
    """Publish at QoS 2 with these identifiers, to a topic of no extension; what comes back."""
    received: list[object] = []
    for at in range(0, len(identifiers), PACKETS_PER_SEND):
        device.send(*(Publish("x", b"", 2, n) for n in identifiers[at : at + PACKETS_PER_SEND]))
        worker.confirm()
        received += device.received()
    return received


def test_all_identifiers_may_be_in_use(worker: WorkerDouble) -> None:
    """And are remembered until PUBREL; then their memory is given back."""
    memory = InputMemory(4 * 2**20)
    worker.mqtt.limit(memory)
    device = worker.device("id")
    everyone = range(1, IDENTIFIERS + 1)
    assert publish_all(worker, device, everyone) == [Pubrec(n) for n in everyone]
    assert 16 * IDENTIFIERS < memory.bytes <= 64 * IDENTIFIERS
    device.send(Publish("x", b"", 2, 77, True))
    assert device.received() == [Pubrec(77)]
    for at in range(1, IDENTIFIERS + 1, PACKETS_PER_SEND):
        some = range(at, min(at + PACKETS_PER_SEND, IDENTIFIERS + 1))
        device.send(*(Pubrel(n) for n in some))
        assert device.received() == [Pubcomp(n) for n in some]
    assert memory.bytes == 0


def test_their_memory_is_bounded_with_that_of_unfinished_packets(worker: WorkerDouble) -> None:
    worker.mqtt.limit(InputMemory(64 * 1024))
    device = worker.device("id")
    publish_all(worker, device, range(1, IDENTIFIERS + 1))
    assert device.closed
    assert worker.reason("closed", "mqtt_input_memory_full") == 1
    # Nobody else notices.
    other = worker.device("other")
    assert publish_all(worker, other, range(1, 1000)) == [Pubrec(n) for n in range(1, 1000)]


def test_an_identifier_used_again_for_another_message_is_another_message(worker: WorkerDouble) -> None:
    """A device with CleanSession 0 has rebooted before PUBREL, and has forgotten its identifiers."""
    device = worker.device("id", clean=False)
    device.publish(TOPIC, b"1", 2, 1)
    worker.identify()
    worker.confirm()
    assert device.received() == [Pubrec(1)]
    device.drop()
    device = worker.device("id", clean=False)
    device.publish(TOPIC, b"2", 2, 1)
    worker.confirm()
    assert device.received() == [Pubrec(1)]
    device.send(Publish(TOPIC, b"2", 2, 1, True))
    assert device.received() == [Pubrec(1)]
    device.send(Pubrel(1))
    assert device.received() == [Pubcomp(1)]
    assert [data.payload for _, data in worker.published()] == [b"1", b"2"]


def test_pubrec_is_of_the_message_that_the_identifier_stands_for(worker: WorkerDouble) -> None:
    """NATS has confirmed the former message, which is not yet the other one."""
    device = worker.device("id")
    device.publish(TOPIC, b"1", 2, 1)  # waits for its identity
    device.publish("x", b"2", 2, 1)
    worker.confirm()
    assert device.received() == [Pubrec(1)]
    worker.identify()
    worker.confirm()
    assert device.received() == []
    device.publish(TOPIC, b"3", 2, 1)
    device.publish("x", b"4", 2, 1)
    worker.confirm()
    assert device.received() == [Pubrec(1)]


@pytest.mark.parametrize("topic", ["x", "y"])
def test_topic_and_payload_make_the_message(worker: WorkerDouble, topic: str) -> None:
    device = worker.device("id")
    device.send(Publish("x", b"payload", 2, 1), Publish(topic, b"payload", 2, 1))
    worker.confirm()
    device.received()
    assert worker.counters.by_protocol()["messages_in"]["mqtt"] == (1 if topic == "x" else 2)


def test_sent_again_at_every_split(worker: WorkerDouble) -> None:
    packet = encode(Publish("x", b"12345678" * 3, 2, 9))
    for at in range(1, len(packet)):
        device = worker.device("id")
        device.send_bytes(packet + packet[:at])
        device.send_bytes(packet[at:])
        worker.confirm()
        assert device.received()[0] == Pubrec(9)
        device.drop()
    assert worker.counters.by_protocol()["messages_in"]["mqtt"] == len(packet) - 1
