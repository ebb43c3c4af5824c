"""The limit of a payload, which NATS may change at any time: what is too large is refused, and nothing else suffers."""

import json
from collections.abc import Iterator

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.wire import esp

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import APP, Transport, WorkerDouble, feed

TOPIC = f"kp1/{APP}/tsx/x/1"
GENERIC = 2**20
"""What the server tells before it knows who connects."""
ACCOUNT = 4096


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as worker:
        yield worker


def info(limit: int) -> bytes:
    return b"INFO " + json.dumps({"max_payload": limit, "headers": True}).encode() + b"\r\n"


def reconnect(worker: WorkerDouble, *limits: int) -> None:
    """Make a connection whose server says each of these limits, the first before CONNECT."""
    worker.link.abort()
    worker._nats = worker.link.begin()
    worker._nats_transport = Transport()
    worker._nats.connection_made(worker._nats_transport)  # type: ignore[arg-type]
    step = worker._nats.expect_info
    worker.loop.create_future = _Future  # type: ignore[attr-defined]
    informed = step()
    feed(worker._nats, info(limits[0]))
    assert informed.done()
    answered = worker._nats.expect_pong()
    for limit in limits[1:]:
        feed(worker._nats, info(limit))
        assert not answered.done(), "INFO is no answer to PING"
    feed(worker._nats, b"PONG\r\n")
    assert answered.done()
    worker.link.resume()


class _Future:
    """A future without a loop."""

    def __init__(self) -> None:
        self._done = False

    def done(self) -> bool:
        return self._done

    def set_result(self, value: object) -> None:
        self._done = True

    def set_exception(self, error: BaseException) -> None:
        self._done = True

    def exception(self) -> None:
        """Nobody looks."""


def statuses(device: Device) -> list[int]:
    return [
        json.loads(packet.payload)["statusCode"]
        for packet in device.received()
        if isinstance(packet, mqtt.Publish)
    ]


def payloads(worker: WorkerDouble) -> list[int]:
    return [len(publication.data.payload) for publication in worker.published()]


def test_the_limit_of_an_account_counts_from_the_first_byte_on(worker: WorkerDouble) -> None:
    reconnect(worker, GENERIC, ACCOUNT)
    device = worker.device()
    device.publish(TOPIC, bytes(8000), 1, 1)
    device.publish(TOPIC, bytes(1000), 1, 2)
    assert statuses(device) == [413]
    assert payloads(worker) == [1000]


def test_a_raised_limit_counts_at_once(worker: WorkerDouble) -> None:
    reconnect(worker, ACCOUNT)
    device = worker.device()
    worker.from_nats(info(GENERIC))
    device.publish(TOPIC, bytes(8000), 1, 1)
    assert payloads(worker) == [8000]


def test_what_waits_while_the_limit_falls_is_refused_and_the_rest_is_sent(worker: WorkerDouble) -> None:
    device = worker.device()
    worker.link.abort()
    device.publish(TOPIC, bytes(8000), 1, 1)
    device.publish(TOPIC, bytes(1000), 1, 2)
    assert statuses(device) == []
    reconnect(worker, GENERIC, ACCOUNT)
    assert statuses(device) == [413]
    assert payloads(worker) == [1000]
    assert worker.reason("refused", "payload_too_large") == 1


def test_what_stands_in_the_block_when_the_limit_falls_is_refused(worker: WorkerDouble) -> None:
    device = worker.device()
    device.publish(f"kp1/{APP}/dcx/token/1", bytes(8000), 1, 1)
    worker.identify()  # outside of a pass over sockets, which would write the block at its end
    feed(worker._nats, info(ACCOUNT))
    worker.loop.run()
    assert statuses(device) == [413]
    assert payloads(worker) == []


@pytest.mark.parametrize("told", [(), (ACCOUNT,)])
def test_a_block_that_ended_a_connection_is_never_sent_again_whole(
    worker: WorkerDouble, told: tuple[int, ...]
) -> None:
    device = worker.device()
    for number, size in enumerate((1000, 8000, 2000), start=1):
        device.publish(TOPIC, bytes(size), 1, number)
    assert payloads(worker) == [1000, 8000, 2000]
    for limit in told:
        worker.from_nats(info(limit))
    worker.from_nats(b"-ERR 'Maximum Payload Violation'\r\n")
    worker.link.abort()
    reconnect(worker, GENERIC)
    assert statuses(device) == [413]
    assert payloads(worker) == [1000, 2000]
    worker.confirm()
    assert sorted(p.packet_id for p in device.received() if isinstance(p, mqtt.Puback)) == [1, 2, 3]


def test_a_lost_connection_after_a_fallen_limit_does_not_bring_the_large_message_back(
    worker: WorkerDouble,
) -> None:
    device = worker.device()
    device.publish(TOPIC, bytes(8000), 1, 1)
    assert payloads(worker) == [8000]
    worker.from_nats(info(ACCOUNT))
    worker.link.abort()
    reconnect(worker, GENERIC)
    assert (statuses(device), payloads(worker)) == ([413], [])
    device.publish(TOPIC, bytes(8000), 1, 2)
    assert payloads(worker) == [8000], "the newest INFO counts"


def test_an_answer_still_finds_its_device(worker: WorkerDouble) -> None:
    reconnect(worker, GENERIC, ACCOUNT)
    device = worker.device()
    device.publish(TOPIC, b"{}", 0)
    (sent,) = worker.published()
    worker.deliver(
        esp.encode_extension_data(
            sent.data.correlation_id, 0, 0, APP, "tsx", None, sent.data.resource_path, 1, b"{}", 200
        )
    )
    assert len(device.received()) == 1
