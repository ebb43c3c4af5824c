"""What a client is sent again when it resumes its session (MQTT 3.1.1 sections 4.4, 4.6): all, in order, paced."""

from collections.abc import Iterator
from typing import Any

import pytest
from kaa_bench.mqtt_packets import Connack, Connect, Puback, Pubcomp, Publish, Pubrec, Pubrel, Subscribe
from kaa_gateway.wire.esp import ExtensionData, encode_extension_data

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import APP, WorkerDouble

KIB = 1024
SESSION_BYTES = 64 * KIB
PACED = SESSION_BYTES // 4
PUSH = ExtensionData("push", 0, 0, APP, "dcx", "endpoint-t", "/json", None, b"news", 200, None)


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble(session_bytes=SESSION_BYTES) as double:
        yield double


def identified(worker: WorkerDouble, qos: int = 1) -> Device:
    device = worker.device("id", clean=False)
    device.send(Subscribe(1, ((f"kp1/{APP}/dcx/t/#", qos),)))
    worker.identify()
    device.received()
    return device


def push(worker: WorkerDouble, *payloads: bytes) -> None:
    for payload in payloads:
        worker.deliver(encode_extension_data(*PUSH._replace(payload=payload)))


def resumed(worker: WorkerDouble) -> tuple[Device, list[Any]]:
    device = worker.unconnected()
    device.send(Connect("id", False, 0))
    worker.admit()
    connack, *packets = device.received()
    assert connack == Connack(True, 0)
    return device, packets


def size(packets: list[Any]) -> int:
    return sum(len(packet.payload) for packet in packets)


def test_messages_in_flight_stay_within_the_limit_of_bytes(worker: WorkerDouble) -> None:
    """With the one that is about to be added; a message larger than the limit goes alone."""
    device = identified(worker)
    push(worker, *(bytes([number]) * (20 * KIB) for number in range(4)))
    received = device.received()
    assert len(received) == 3
    device.send(Puback(received[0].packet_id))
    assert len(device.received()) == 1
    with WorkerDouble(session_bytes=10 * KIB) as tight:
        device = identified(tight)
        push(tight, bytes(40 * KIB))
        assert len(device.received()) == 1


def test_what_is_sent_again_is_paced_by_acknowledgements(worker: WorkerDouble) -> None:
    device = identified(worker)
    payloads = [bytes([number]) * (5 * KIB) for number in range(12)]
    push(worker, *payloads)
    first = device.received()
    assert len(first) == 12
    device.drop()
    for _ in range(3):
        device, again = resumed(worker)
        assert 0 < size(again) <= PACED
        assert [(packet.payload, packet.dup) for packet in again] == [
            (payload, True) for payload in payloads[: len(again)]
        ]
        assert device.received() == []
        device.drop()
    device, packets = resumed(worker)
    push(worker, b"new")
    done: list[Publish] = []
    while packets:
        done.append(packets.pop(0))
        device.send(Puback(done[-1].packet_id))
        packets += device.received()
        assert size(packets) <= PACED
    assert [packet.payload for packet in done] == [*payloads, b"new"]
    assert [packet.dup for packet in done] == [True] * 12 + [False]
    assert [packet.packet_id for packet in done[:12]] == [packet.packet_id for packet in first]
    device.drop()
    assert resumed(worker)[1] == []


def test_a_large_message_is_sent_again_alone(worker: WorkerDouble) -> None:
    device = identified(worker)
    push(worker, bytes(40 * KIB), b"small")
    device.received()
    device.drop()
    device, (large,) = resumed(worker)
    assert len(large.payload) == 40 * KIB
    device.send(Puback(large.packet_id))
    (small,) = device.received()
    assert small.payload == b"small"


def test_qos_2_goes_on_where_it_was_in_order(worker: WorkerDouble) -> None:
    device = identified(worker, 2)
    push(worker, *(bytes([number]) * (6 * KIB) for number in range(6)))
    first = device.received()
    device.send(*(Pubrec(packet.packet_id) for packet in first[:2]))
    assert device.received() == [Pubrel(packet.packet_id) for packet in first[:2]]
    device.drop()
    device, packets = resumed(worker)
    seen = list(packets)
    queue = list(packets)
    while queue:
        packet = queue.pop(0)
        device.send(Pubcomp(packet.packet_id) if isinstance(packet, Pubrel) else Pubrec(packet.packet_id))
        more = device.received()
        queue += more
        seen += more
    assert seen[:2] == [Pubrel(packet.packet_id) for packet in first[:2]]
    assert [packet for packet in seen if isinstance(packet, Publish)] == [
        packet._replace(dup=True) for packet in first[2:]
    ]
    device.drop()
    assert resumed(worker)[1] == []


def test_an_acknowledgement_of_what_was_sent_before_counts(worker: WorkerDouble) -> None:
    """A client may acknowledge over the new connection what it has received over the old one."""
    device = identified(worker)
    push(worker, *(bytes([number]) * (5 * KIB) for number in range(12)))
    first = device.received()
    device.drop()
    device, packets = resumed(worker)
    device.send(*(Puback(packet.packet_id) for packet in reversed(first)))
    later = device.received()
    assert {packet.packet_id for packet in [*packets, *later]} <= {packet.packet_id for packet in first}
    push(worker, b"new")
    assert [packet.payload for packet in device.received()] == [b"new"]
    device.drop()
    _, again = resumed(worker)
    assert [packet.payload for packet in again] == [b"new"]
