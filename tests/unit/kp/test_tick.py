"""When output is written: at the end of the pass that made it, or else by a callback of the event loop."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from kaa_bench import mqtt_packets as mqtt

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import APP, WorkerDouble, feed

TOPIC = f"kp1/{APP}/dcx/token/json"
ANOTHER = f"kp1/{APP}/dcx/another/json"


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as worker:
        yield worker


@pytest.fixture
def device(worker: WorkerDouble) -> Device:
    """A device whose token is known."""
    device = worker.device()
    device.publish(TOPIC, b"first")
    worker.identify()
    worker.loop.run()
    feed(worker._nats, b"PONG\r\n")
    worker._nats_transport.written = b""
    return device


def test_a_message_and_its_confirmation_need_no_callback(worker: WorkerDouble, device: Device) -> None:
    device.publish(TOPIC, b"alone", 1, 7)
    assert worker._nats_transport.written.count(b"PUB ") == 1
    assert worker._nats_transport.written.endswith(b"PING\r\n")
    feed(worker._nats, b"PONG\r\n")
    assert device._peer.look() == mqtt.encode(mqtt.Puback(7))
    assert not worker.loop.turn(), "a callback was needed"


def test_output_outside_of_a_pass_is_written_by_one_callback(worker: WorkerDouble, device: Device) -> None:
    for packet_id in range(1, 4):
        device.publish(ANOTHER, b"waits for its identity", 1, packet_id)
    worker.identify()
    assert worker._nats_transport.written == b""
    assert worker.loop.turn()
    assert worker._nats_transport.written.count(b"PUB ") == 3
    assert worker._nats_transport.written.count(b"PING\r\n") == 1


def test_an_output_that_cannot_be_written_keeps_no_other_from_it(
    worker: WorkerDouble, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data: bytes) -> None:
        raise RuntimeError("a fault of the transport")

    def report(context: Mapping[str, Any]) -> None:
        reported.append(context["exception"])

    reported: list[Exception] = []
    monkeypatch.setattr(worker.loop, "call_exception_handler", report)
    monkeypatch.setattr(worker._nats_transport, "write", fail)
    device.send(mqtt.Publish(TOPIC, b"lost", 0, 0), mqtt.Pingreq())
    assert [str(each) for each in reported] == ["a fault of the transport"]
    assert device._peer.look() == mqtt.encode(mqtt.Pingresp())
    monkeypatch.undo()
    device.publish(TOPIC, b"later", 0)
    assert worker._nats_transport.written.count(b"PUB ") == 1
