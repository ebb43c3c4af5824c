"""MQTT 5: the User Property `traceparent` of a message continues the trace that its device has begun.

Source: W3C Trace Context, section 3.2; docs/tracing.md.
"""

from collections.abc import Iterator

import pytest

from tests.support.mqtt5.packets import Publish
from tests.support.mqtt5.properties import Property
from tests.unit.kp.test_tracing import RecordingTracer, header
from tests.unit.kp.worker_double import APP, WorkerDouble
from tests.unit.mqtt.mqtt5_device import Mqtt5Device, connect

TOPIC = f"kp1/{APP}/dcx/t/json"
SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_SAMPLED = f"{SAMPLED[:-2]}00"
NEVER = 1_000_000
"""Messages until the gateway would trace one of its own accord."""


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as double:
        yield double


def publish(worker: WorkerDouble, device: Mqtt5Device, *users: tuple[str, str], qos: int = 0) -> None:
    properties = tuple((Property.USER_PROPERTY, user) for user in users)
    device.send(Publish(TOPIC, b"m", qos, 7 if qos else 0, properties=properties))
    worker.identify()


@pytest.mark.parametrize("flags", ["03", "0b", "0f", "ff"])
def test_other_flags_beside_that_of_a_record_change_nothing(worker: WorkerDouble, flags: str) -> None:
    tracer = RecordingTracer(worker, NEVER)
    device, _ = connect(worker)
    publish(worker, device, ("traceparent", SAMPLED[:-2] + flags))
    assert tracer.parents == [(SAMPLED[:-2] + flags).encode()]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_of_a_trace_that_is_recorded_continues_it(worker: WorkerDouble, qos: int) -> None:
    tracer = RecordingTracer(worker, *[NEVER] * 9)
    device, _ = connect(worker)
    publish(worker, device)
    publish(worker, device, ("unit", "C"), ("traceparent", SAMPLED), ("traceparent", NOT_SAMPLED), qos=qos)
    publish(worker, device)
    assert [field for field, _ in worker.published_with_headers()] == [b"", header(0), b""]
    assert tracer.parents == [SAMPLED.encode()]
    assert worker.reason("ignored", "mqtt_user_property") == 1


@pytest.mark.parametrize(
    "value",
    [
        NOT_SAMPLED,
        f"{SAMPLED[:-1]}a",
        "",
        SAMPLED[:-1],
        f"{SAMPLED}0",
        "01",
        "\N{EURO SIGN}" * 18 + "1",
        SAMPLED.upper(),
        SAMPLED.replace("-", "_"),
    ],
)
def test_other_values_begin_no_trace(worker: WorkerDouble, value: str) -> None:
    tracer = RecordingTracer(worker, *[NEVER] * 9)
    device, _ = connect(worker)
    publish(worker, device, ("traceparent", value))
    publish(worker, device, ("Traceparent", SAMPLED))
    assert [field for field, _ in worker.published_with_headers()] == [b"", b""]
    assert tracer.parents == []
