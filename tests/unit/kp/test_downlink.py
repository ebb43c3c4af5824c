"""From NATS to a device: answers by correlation ID, pushes by endpoint ID, affinity, no responders.

Source: 4/ESP, ExtensionData and session affinity; 3/ISM, time-outs.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.bus import subjects
from kaa_gateway.kp.correlation import Correlator
from kaa_gateway.wire.esp import ExtensionData, encode_extension_data

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import APP, OTHER_APP, REPLY_TO, WorkerDouble

DCX = subjects.service("dcx", "esp", subjects.CLIENT_DATA)
INT64_MAX, INT64_MIN = 2**63 - 1, -(2**63)
PUSH = ExtensionData("push", 0, 0, APP, "dcx", "endpoint-t", "/json", None, b"news", 200, None)


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as double:
        yield double


def datum(**changed: Any) -> bytes:
    return encode_extension_data(*PUSH._replace(**changed))


def asking(
    worker: WorkerDouble, token: str = "t", request: str = "json/7", qos: int = 0
) -> tuple[Device, str]:
    """A device that has published, and the correlation ID of what it sent."""
    device = worker.device()
    device.publish(f"kp1/{APP}/dcx/{token}/{request}", b"", qos, qos)
    worker.identify()
    ((_, data),) = worker.published()
    return device, data.correlation_id


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize(
    ("status", "suffix"), [(200, "status"), (299, "status"), (199, "error"), (404, "error")]
)
def test_an_answer_goes_to_who_asked_at_the_qos_of_the_request(
    worker: WorkerDouble, qos: int, status: int, suffix: str
) -> None:
    bystander, _ = asking(worker)
    device, correlation_id = asking(worker, qos=qos)
    worker.deliver(
        datum(correlation_id=correlation_id, request_id=7, status_code=status, reason_phrase="Why")
    )
    (answer,) = device.received()
    assert (answer.topic, answer.qos) == (f"kp1/{APP}/dcx/t/json/7/{suffix}", qos)
    assert answer.payload == (
        b"news" if suffix == "status" else b'{"statusCode":%d,"reasonPhrase":"Why"}' % status
    )
    assert bystander.received() == []


def test_a_push_goes_once_to_every_device_of_the_endpoint(worker: WorkerDouble) -> None:
    devices = [asking(worker)[0], asking(worker)[0]]
    stranger, _ = asking(worker, "other")
    worker.deliver(datum())
    for device in devices:
        assert device.received() == [mqtt.Publish(f"kp1/{APP}/dcx/t/json/status", b"news")]
    assert stranger.received() == []


def test_a_push_finds_its_endpoint_among_those_whose_ids_end_alike(worker: WorkerDouble) -> None:
    """Also when some of them have gone and come back in another order."""
    devices = {}
    for _ in range(2):
        for token in ("a-12345678", "b-12345678", "12345678"):
            devices[token], _ = asking(worker, token)
        for number, token in enumerate((*devices, *reversed(devices))):
            worker.deliver(datum(endpoint_id=f"endpoint-{token}", correlation_id=f"{number}"))
            assert [len(device.received()) for device in devices.values()] == [
                int(each == token) for each in devices
            ]
        for device in devices.values():
            device.drop()
        worker.deliver(datum(endpoint_id="endpoint-12345678", correlation_id="gone"))


@pytest.mark.parametrize(
    ("changes", "topic"),
    [
        ({"resource_path": "/jsom"}, f"kp1/{APP}/dcx/t/jsom/status"),
        ({"resource_path": "/jso"}, f"kp1/{APP}/dcx/t/jso/status"),
        ({"resource_path": "/json/1"}, f"kp1/{APP}/dcx/t/json/1/status"),
        ({"request_id": 7}, f"kp1/{APP}/dcx/t/json/7/status"),
        ({"extension_instance_name": "cmx"}, f"kp1/{APP}/cmx/t/json/status"),
        ({"app_version_name": OTHER_APP}, f"kp1/{OTHER_APP}/dcx/t/json/status"),
        ({"app_version_name": None}, f"kp1/{APP}/dcx/t/json/status"),
        ({"status_code": 404}, f"kp1/{APP}/dcx/t/json/error"),
    ],
)
def test_a_push_has_its_own_topic_whatever_came_before_it(
    worker: WorkerDouble, changes: dict[str, Any], topic: str
) -> None:
    """The topic of the last push is remembered, because the next is mostly of the same kind."""
    device, _ = asking(worker)
    usual = f"kp1/{APP}/dcx/t/json/status"
    for step, (changed, wanted) in enumerate(
        [({}, usual), ({}, usual), (changes, topic), ({}, usual), (changes, topic)]
    ):
        worker.deliver(datum(correlation_id=f"push {step}", **changed))
        assert [message.topic for message in device.received()] == [wanted]


def test_a_push_names_the_token_that_its_device_used_last(worker: WorkerDouble) -> None:
    """Also after pushes to another token of the same endpoint."""
    device = worker.device()
    for token in ("one", "two", "one"):
        device.publish(f"kp1/{APP}/dcx/{token}/json", b"")
        worker.identify(lambda _: "endpoint-t")
        worker.deliver(datum(correlation_id=""))
        assert [message.topic for message in device.received()] == [f"kp1/{APP}/dcx/{token}/json/status"]


def test_a_push_whose_topic_is_long_is_delivered_each_time(worker: WorkerDouble) -> None:
    device, _ = asking(worker)
    for _ in range(3):
        worker.deliver(datum(correlation_id="", resource_path="/" + "x" * 600))
        assert [len(message.topic) for message in device.received()] == [len(f"kp1/{APP}/dcx/t/status") + 601]


def test_a_push_that_is_repeated_reaches_only_who_has_not_had_it(worker: WorkerDouble) -> None:
    early, _ = asking(worker)
    worker.deliver(datum())
    late, _ = asking(worker)
    worker.deliver(datum())
    for device in (early, late):
        assert device.received() == [mqtt.Publish(f"kp1/{APP}/dcx/t/json/status", b"news")]
    assert worker.reason("dropped", "repeated_push") == 1
    early.drop()
    back, _ = asking(worker)
    worker.deliver(datum())
    assert len(back.received()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"correlation_id": "another"},
        {"resource_path": "/other"},
        {"payload": b"more"},
        {"payload": None},
        {"resource_path": "/jsonn", "payload": b"ews"},
    ],
)
def test_a_push_that_differs_in_anything_is_another(worker: WorkerDouble, changes: dict[str, Any]) -> None:
    device, _ = asking(worker)
    worker.deliver(datum())
    worker.deliver(datum(**changes))
    assert len(device.received()) == 2


def test_pushes_without_an_id_are_not_told_apart(worker: WorkerDouble) -> None:
    device, _ = asking(worker)
    for _ in range(2):
        worker.deliver(datum(correlation_id=""))
    assert len(device.received()) == 2


def test_pushes_are_remembered_in_two_generations(worker: WorkerDouble) -> None:
    """8192 at least, and twice as many at most."""
    device, _ = asking(worker)

    def reach(*correlation_ids: object) -> int:
        for correlation_id in correlation_ids:
            worker.deliver(datum(correlation_id=str(correlation_id)))
        return len(device.received())

    assert reach("first", *range(8191)) == 8192
    assert reach("first") == 0
    assert reach(*range(8191, 16_384)) == 8193
    assert reach("first") == 1


def test_a_stale_answer_finds_its_endpoint(worker: WorkerDouble) -> None:
    device, correlation_id = asking(worker)
    device.drop()
    back, _ = asking(worker)
    worker.deliver(datum(correlation_id=correlation_id, request_id=7))
    assert back.received() == [mqtt.Publish(f"kp1/{APP}/dcx/t/json/7/status", b"news")]


def test_an_answer_is_not_given_to_a_session_that_does_not_speak_for_its_endpoint(
    worker: WorkerDouble,
) -> None:
    asker, correlation_id = asking(worker, "other")
    owner, _ = asking(worker)
    worker.deliver(datum(correlation_id=correlation_id))
    assert asker.received() == []
    assert len(owner.received()) == 1
    assert worker.reason("dropped", "wrong_endpoint") == 1


def test_an_id_of_another_worker_is_a_push(worker: WorkerDouble) -> None:
    device, _ = asking(worker)
    foreign = Correlator(1, 0).encode(0, 2, 0)
    worker.deliver(datum(correlation_id=foreign))
    assert [packet.qos for packet in device.received()] == [0]


@pytest.mark.parametrize(
    ("timestamp", "timeout", "expired"),
    [
        (0, 0, False),
        (INT64_MIN, 0, False),
        (INT64_MIN, -1, False),
        (0, 1000, True),
        (INT64_MIN, 1, True),
        (INT64_MIN, INT64_MAX, True),
        (-1, INT64_MAX, False),
        (INT64_MAX, 1, False),
        (INT64_MAX, INT64_MAX, False),
    ],
)
def test_what_has_expired_is_dropped(
    worker: WorkerDouble, timestamp: int, timeout: int, expired: bool
) -> None:
    """Also where the sum of both does not fit 64 bits."""
    device, _ = asking(worker)
    worker.deliver(datum(timestamp=timestamp, timeout=timeout))
    assert (device.received() == []) is expired
    assert worker.reason("dropped", "expired") == expired


def test_a_message_in_time_is_delivered(worker: WorkerDouble) -> None:
    device, _ = asking(worker)
    worker.deliver(datum(timestamp=time.time_ns() // 10**6, timeout=600_000))
    assert len(device.received()) == 1


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"endpoint_id": "nobody"}, "unknown_endpoint"),
        ({"endpoint_id": None}, "unknown_endpoint"),
        ({"extension_instance_name": None}, "no_topic"),
        ({"resource_path": "/#"}, "no_topic"),
        ({"resource_path": "/+/x"}, "no_topic"),
        ({"resource_path": "/\x00"}, "no_topic"),
        ({"resource_path": "/\x9b"}, "no_topic"),
        ({"resource_path": "/" + "x" * 65_535}, "no_topic"),
        ({"extension_instance_name": "d#x"}, "no_topic"),
        ({"app_version_name": "é\x80"}, "no_topic"),
    ],
)
def test_what_cannot_be_delivered_is_counted(
    worker: WorkerDouble, changed: dict[str, Any], reason: str
) -> None:
    device, _ = asking(worker)
    worker.deliver(datum(**changed))
    assert device.received() == []
    assert not device.closed
    assert worker.reason("dropped", reason) == 1


@pytest.mark.parametrize("size", [1, 119, 120, 121])
def test_what_was_clean_before_makes_nothing_else_clean(worker: WorkerDouble, size: int) -> None:
    """The text that was found clean last is only compared with: also at the bound of what is remembered."""
    device, _ = asking(worker)
    good = "/" + "x" * (size - 1)
    for number, path in enumerate([good, good, good[:-1] + "#", good, good + "#", good[:-1] + "\x00", good]):
        worker.deliver(datum(correlation_id=f"push-{number}", resource_path=path))
    assert [packet.topic for packet in device.received()] == [f"kp1/{APP}/dcx/t{good}/status"] * 4
    assert worker.reason("dropped", "no_topic") == 3


def test_the_qos_of_a_push_is_that_of_the_subscriptions_that_are_left(worker: WorkerDouble) -> None:
    device, _ = asking(worker)
    device.send(mqtt.Subscribe(1, ((f"kp1/{APP}/#", 1), (f"kp1/{APP}/dcx/t/#", 0))))
    device.received()

    def qos_of(correlation_id: str) -> int:
        worker.deliver(datum(correlation_id=correlation_id))
        (packet,) = device.received()
        assert isinstance(packet, mqtt.Publish)
        return packet.qos

    assert qos_of("first") == 1
    device.send(mqtt.Unsubscribe(2, (f"kp1/{APP}/#",)))
    device.received()
    assert qos_of("second") == 0
    device.send(mqtt.Subscribe(3, (("kp1/+/dcx/#", 2),)))
    device.received()
    assert qos_of("third") == 2


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_datum_disturbs_anybody(data: st.DataObject) -> None:
    with WorkerDouble() as worker:
        device, correlation_id = asking(worker)
        bad = bytearray(datum(correlation_id=correlation_id))
        for at in data.draw(st.lists(st.integers(0, len(bad) - 1), max_size=5)):
            bad[at] = data.draw(st.integers(0, 255))
        worker.deliver(
            bytes(bad[: data.draw(st.integers(0, len(bad)))]), data.draw(st.none() | st.just("a.b"))
        )
        device.received()
        worker.deliver(datum())
        assert device.received() == [mqtt.Publish(f"kp1/{APP}/dcx/t/json/status", b"news")]


# ---------------------------------------------------------------- affinity and no responders

REPLICA_REPLY = subjects.replica("dcx-7", "esp", "ClientData-response")
REPLICA_SUBJECT = subjects.replica("dcx-7", "esp", subjects.CLIENT_DATA)


def test_an_extension_replica_keeps_the_endpoint_that_it_asked_for_until_it_is_gone(
    worker: WorkerDouble,
) -> None:
    device, _ = asking(worker)
    worker.confirm()
    stranger, _ = asking(worker, "other")
    worker.confirm()
    worker.deliver(datum(), REPLICA_REPLY)
    device.publish(f"kp1/{APP}/dcx/t/json/7", b"1")
    device.publish(f"kp1/{APP}/cmx/t/config", b"2")
    stranger.publish(f"kp1/{APP}/dcx/other/json", b"3")
    assert [(to.split(".")[3], data.payload) for to, data in worker.published()] == [
        ("dcx-7", b"1"),
        ("cmx", b"2"),
        ("dcx", b"3"),
    ]
    worker.no_responders(REPLICA_SUBJECT)
    device.publish(f"kp1/{APP}/dcx/t/json/7", b"4")
    assert [(to, data.payload) for to, data in worker.published()] == [(DCX, b"1"), (DCX, b"4")]
    assert [packet.payload for packet in device.received()] == [b"news"]


def test_an_endpoint_is_kept_on_all_its_paths_and_connections(worker: WorkerDouble) -> None:
    """Connections that have used a path before follow, and so does an alternation of paths."""
    devices = [asking(worker)[0], asking(worker, request="events/1")[0]]
    worker.confirm()
    worker.deliver(datum(), REPLICA_REPLY)
    for device in devices:
        device.publish(f"kp1/{APP}/dcx/t/json/8", b"1")
        device.publish(f"kp1/{APP}/dcx/t/events/8", b"2")
    assert [to.split(".")[3] for to, _ in worker.published()] == ["dcx-7"] * 4
    worker.no_responders(REPLICA_SUBJECT)
    worker.published()
    devices[1].publish(f"kp1/{APP}/dcx/t/events/9", b"3")
    assert [to for to, _ in worker.published()] == [DCX]


@pytest.mark.parametrize(
    "reply",
    ["a.b.c", REPLY_TO + ".x", "kaa.v1.service.dcx.esp.X", "kaa.v1.replica.x.cip.X", "kaa.v1.replica..esp.X"],
)
def test_a_reply_to_that_is_no_replica_of_an_extension_redirects_nothing(
    worker: WorkerDouble, reply: str
) -> None:
    device, _ = asking(worker)
    worker.deliver(datum(), reply)
    device.publish(f"kp1/{APP}/dcx/t/json", b"1")
    assert [to for to, _ in worker.published()] == [DCX]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_no_responders_is_503_for_who_asked(worker: WorkerDouble, qos: int) -> None:
    bystander, _ = asking(worker)
    worker.confirm()
    device, _ = asking(worker, qos=qos)
    worker.no_responders(DCX)
    (error,) = device.received()
    assert (error.topic, error.qos) == (f"kp1/{APP}/dcx/t/json/7/error", qos)
    assert error.payload.startswith(b'{"statusCode":503,')
    assert bystander.received() == []


def test_no_responders_for_a_device_that_has_gone(worker: WorkerDouble) -> None:
    device, _ = asking(worker)
    device.drop()
    worker.no_responders(DCX)
    worker.no_responders("kaa.v1.service.unknown.esp.ClientData")
    assert worker.reason("refused", "no_responders") == 1
    assert worker.link.unattributed_no_responders == 1


def test_an_answer_that_names_a_request_does_not_break_an_mqtt_connection(worker: WorkerDouble) -> None:
    """A correlation ID says how its message came in; one that says what it cannot have been is no answer."""
    device, correlation_id = asking(worker)
    decoded = worker.correlator.decode(correlation_id.encode())
    assert decoded is not None
    session, _, sequence = decoded
    worker.deliver(datum(correlation_id=worker.correlator.encode(session, 3, sequence)))
    assert device.received() == []
    assert worker.reason("dropped", "late_answer") == 1


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("phrase", ["\x01" * 1_000_000, "a" + "€" * 5000, "x" * 1025])
def test_a_reason_phrase_is_cut_at_a_character(worker: WorkerDouble, qos: int, phrase: str) -> None:
    """A megabyte of control characters would be six of JSON, which the limits of queues do not expect."""
    device, correlation_id = asking(worker, qos=qos)
    worker.deliver(
        datum(
            correlation_id=correlation_id, request_id=7, status_code=500, reason_phrase=phrase, payload=None
        )
    )
    (answer,) = device.received()
    assert len(answer.payload) < 6 * 1024 + 100
    kept = json.loads(answer.payload)["reasonPhrase"]
    assert phrase.startswith(kept)
    assert 1024 - 3 < len(kept.encode()) <= 1024


def test_a_reason_phrase_of_a_kilobyte_is_kept(worker: WorkerDouble) -> None:
    phrase = "€" * 341 + "x"
    device, correlation_id = asking(worker)
    worker.deliver(
        datum(
            correlation_id=correlation_id, request_id=7, status_code=500, reason_phrase=phrase, payload=None
        )
    )
    (answer,) = device.received()
    assert json.loads(answer.payload)["reasonPhrase"] == phrase


@pytest.mark.parametrize("offset", [-3_600_000, -10_000, 3_600_000])
def test_an_answer_with_a_wrong_timestamp_is_noted(worker: WorkerDouble, offset: int) -> None:
    device, correlation_id = asking(worker, qos=1)
    now = time.time_ns() // 10**6
    worker.deliver(datum(correlation_id=correlation_id, request_id=7, timestamp=now + offset, timeout=5000))
    assert len(device.received()) == (offset > 0)
    assert worker.downlink.clock_skew.counts == {"dcx": 1}


@pytest.mark.parametrize(("name", "noted"), [(None, "unknown"), ("n" * 500, "n" * 128)])
def test_the_instance_of_a_wrong_timestamp_may_have_any_name(
    worker: WorkerDouble, name: str | None, noted: str
) -> None:
    for timestamp in (INT64_MIN, INT64_MAX):
        worker.deliver(datum(timestamp=timestamp, timeout=1, extension_instance_name=name))
    assert worker.downlink.clock_skew.counts == {noted: 2}


def test_an_answer_that_is_only_late_is_not_noted(worker: WorkerDouble) -> None:
    _, correlation_id = asking(worker, qos=1)
    now = time.time_ns() // 10**6
    worker.deliver(datum(correlation_id=correlation_id, timestamp=now - 10, timeout=1))
    worker.deliver(datum(timestamp=now - 10_000, timeout=5000))
    assert worker.counters.by_reason()["dropped", "expired"] == 2
    assert worker.downlink.clock_skew.counts == {}
