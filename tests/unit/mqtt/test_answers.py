"""The QoS at which answers and errors come (MQTT 3.1.1 sections 3.3.5, 3.8.4; 1/KP, responses)."""

from collections.abc import Iterator

import pytest
from kaa_bench.mqtt_packets import Publish, Subscribe
from kaa_gateway.wire.esp import ExtensionData, encode_extension_data

from tests.unit.kp.worker_double import APP, WorkerDouble

REASON_PHRASE_SIZE_MAX = 1024
PUSH = ExtensionData("push", 0, 0, APP, "dcx", "endpoint-t", "/json", None, b"news", 200, None)


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as double:
        yield double


@pytest.mark.parametrize(
    ("filters", "asked", "expected"),
    [
        ((), 1, 1),
        ((("elsewhere", 0),), 2, 2),
        (((f"kp1/{APP}/dcx/t/#", 0),), 1, 0),
        (((f"kp1/{APP}/dcx/t/#", 1),), 2, 1),
        (((f"kp1/{APP}/dcx/t/#", 2),), 1, 1),
        (((f"kp1/{APP}/dcx/t/#", 0), ("kp1/#", 1)), 2, 1),
        (((f"kp1/{APP}/dcx/t/#", 1), ("kp1/#", 0)), 2, 1),
        (((f"kp1/{APP}/dcx/t/#", 2),), 0, 0),
    ],
)
@pytest.mark.parametrize("refused", [False, True])
def test_qos_of_an_answer_is_at_most_that_of_its_subscription(
    worker: WorkerDouble,
    filters: tuple[tuple[str, int], ...],
    asked: int,
    expected: int,
    refused: bool,
) -> None:
    """3.8.4, 3.3.5: the highest of those that match; an answer that none matches keeps the QoS of its request."""
    device = worker.device("id")
    if filters:
        device.send(Subscribe(1, filters))
    worker.identify((lambda _: "") if refused else "endpoint-{}".format)
    device.publish(f"kp1/{APP}/dcx/t/json/1", b"", asked, 5 if asked else 0)
    worker.identify((lambda _: "") if refused else "endpoint-{}".format)
    if not refused:
        ((_, data),) = worker.published()
        worker.answer_to(data)
    (answer,) = (packet for packet in device.received() if isinstance(packet, Publish))
    assert answer.topic == f"kp1/{APP}/dcx/t/json/1/{'error' if refused else 'status'}"
    assert answer.qos == expected


def test_a_reason_phrase_is_cut_off(worker: WorkerDouble) -> None:
    """Each control character is six in JSON."""
    device = worker.device("id")
    device.publish(f"kp1/{APP}/dcx/t/json")
    worker.identify()
    worker.deliver(encode_extension_data(*PUSH._replace(status_code=500, reason_phrase="\1" * 100_000)))
    (error,) = device.received()
    assert isinstance(error, Publish)
    assert (
        error.payload == b'{"statusCode":500,"reasonPhrase":"' + rb"\u0001" * REASON_PHRASE_SIZE_MAX + b'"}'
    )
