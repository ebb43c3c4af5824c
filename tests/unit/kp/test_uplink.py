"""From a device's message to ClientData. Source: 1/KP; 4/ESP, ClientData."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.bus import subjects
from kaa_gateway.kp.correlation import Correlator

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import APP, OTHER_APP, WorkerDouble

DCX = subjects.service("dcx", "esp", subjects.CLIENT_DATA)
TSX = subjects.service("tsx", "esp", subjects.CLIENT_DATA)


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as double:
        yield double


@pytest.mark.parametrize(
    ("topic", "subject", "endpoint_id", "resource_path", "request_id"),
    [
        (f"kp1/{APP}/dcx/t/json", DCX, "endpoint-t", "/json", None),
        (f"kp1/{APP}/dcx/t/json/7", DCX, "endpoint-t", "/json", 7),
        (f"kp1/{APP}/dcx/t/json/0", DCX, "endpoint-t", "/json", 0),
        (f"kp1/{APP}/dcx/t/json/2147483648", DCX, "endpoint-t", "/json/2147483648", None),
        (f"kp1/{APP}/dcx/t", DCX, "endpoint-t", "", None),
        (f"kp1/{APP}/dcx/t/", DCX, "endpoint-t", "/", None),
        (f"kp1/{APP}/dcx/t/5", DCX, "endpoint-t", "", 5),
        # A token of digits is found by its position.
        (f"kp1/{APP}/dcx/123", DCX, "endpoint-123", "", None),
        (f"kp1/{APP}/dcx/123/4", DCX, "endpoint-123", "", 4),
        (f"kp1/{APP}/dcx/123/json/4", DCX, "endpoint-123", "/json", 4),
        (f"kp1/{APP}/dcx/gerät/ü", DCX, "endpoint-gerät", "/ü", None),
        (f"kp1/{APP}/tsx", TSX, None, "", None),
        (f"kp1/{APP}/tsx/9", TSX, None, "", 9),
        (f"kp1/{APP}/tsx/time/9", TSX, None, "/time", 9),
    ],
)
def test_client_data_of_a_topic(
    worker: WorkerDouble,
    topic: str,
    subject: str,
    endpoint_id: str | None,
    resource_path: str,
    request_id: int | None,
) -> None:
    """The first time through the router, then from its cache, then as the connection's last route."""
    for device in (worker.device(), worker.device()):
        for payload in (b"\x00first", b"", b"third"):
            device.publish(topic, payload)
            worker.identify()
            ((to, data),) = worker.published()
            assert to == subject
            assert data[3:] == (APP, endpoint_id, resource_path, request_id, payload, None)
            assert data.timeout == 0
            assert data.timestamp > 1_600_000_000_000


@pytest.mark.parametrize(
    ("extension", "path", "config_name"),
    [
        ("cmx", "/config/json/network", "network"),
        ("cmx", "/applied/json/display_settings-2", "display_settings-2"),
        ("cmx", "/config/json", None),
        ("cmx", "/config/json/", None),
        ("cmx", "/config/json/a/b", None),
        ("cmx", "/config/json/a b", None),
        ("cmx", "/config/json/naïve", None),
        ("cmx", "/config/cbor/network", None),
        ("cmx", "/other/json/network", None),
        ("cmx", "/config/json/" + "n" * 500, "n" * 500),
        # Only extension instances that are configured so get it.
        ("dcx", "/config/json/network", None),
    ],
)
def test_the_configuration_that_a_path_names(
    worker: WorkerDouble, extension: str, path: str, config_name: str | None
) -> None:
    device = worker.device()
    for suffix in ("", "/17"):
        device.publish(f"kp1/{APP}/{extension}/t{path}{suffix}", b"{}")
        worker.identify()
        (published,) = worker.published()
        assert published.data.config_name == config_name
        assert published.data.resource_path == path
        assert published.data.request_id == (17 if suffix else None)
        assert published.data.payload == b"{}"


def test_the_correlation_id_names_session_and_qos(worker: WorkerDouble) -> None:
    keys = set()
    for device in (worker.device(), worker.device()):
        for qos in range(3):
            device.publish(f"kp1/{APP}/tsx/1", b"", qos, qos)
            ((_, data),) = worker.published()
            decoded = Correlator(0xABCDEF, 0).decode(data.correlation_id.encode())
            assert decoded is not None
            assert decoded[1] == qos
            keys.add(decoded[0])
    assert len(keys) == 2


def test_messages_wait_for_their_token_in_order_and_others_pass(worker: WorkerDouble) -> None:
    device = worker.device()
    for number in range(3):
        device.publish(f"kp1/{APP}/dcx/slow/json", b"slow %d" % number)
        device.publish(f"kp1/{APP}/tsx", b"fast %d" % number)
    assert [data.payload for _, data in worker.published()] == [b"fast 0", b"fast 1", b"fast 2"]
    assert [token for token, _ in worker.asked] == ["slow"]
    worker.identify()
    device.publish(f"kp1/{APP}/dcx/slow/json", b"slow 3")
    assert [data.payload for _, data in worker.published()] == [b"slow 0", b"slow 1", b"slow 2", b"slow 3"]


def test_what_waits_when_the_device_goes_is_forwarded_all_the_same(worker: WorkerDouble) -> None:
    device = worker.device()
    device.publish(f"kp1/{APP}/dcx/t/json", b"last words", 1, 1)
    device.drop()
    worker.identify()
    assert [data.payload for _, data in worker.published()] == [b"last words"]
    worker.confirm()
    assert worker.presence.endpoints == set()


def test_a_full_queue_holds_the_connection_and_loses_nothing() -> None:
    with WorkerDouble(waiting=3) as worker:
        device = worker.device()
        for number in range(10):
            device.publish(f"kp1/{APP}/dcx/t/json", str(number).encode(), 1, number + 1)
        assert worker.published() == []
        worker.identify()
        assert [data.payload for _, data in worker.published()] == [
            str(number).encode() for number in range(10)
        ]
        worker.confirm()
        assert device.received() == [mqtt.Puback(number + 1) for number in range(10)]


def test_nats_backlog_holds_the_connections_and_loses_nothing() -> None:
    with WorkerDouble(pending_max=2000) as worker:
        devices = [worker.device(), worker.device()]
        for number in range(20):
            for device in devices:
                device.publish(f"kp1/{APP}/tsx", b"%02d" % number + bytes(100), 1, number + 1)
        payloads = []
        while published := worker.published():
            payloads += [data.payload[:2] for _, data in published]
            assert worker.link.backlog < 2000 + 500
            worker.confirm()
        assert sorted(payloads) == sorted([b"%02d" % number for number in range(20)] * 2)
        for device in devices:
            assert device.received() == [mqtt.Puback(number + 1) for number in range(20)]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("topic", "status"),
    [
        (f"kp1/{APP}/nox/t/json", 404),
        ("kp1/nope/dcx/t/json", 404),
        (f"kp1/{OTHER_APP}/tsx", 404),
        (f"kp1/{APP}/dcx", 404),
        (f"kp1/{APP}/dcx/", 404),
        (f"kp1/{APP}/dcx//json", 404),
        (f"kp1/{APP}", 404),
        (f"kp1/{APP}/dcx/{'t' * 257}/json", 404),
        (f"kp1/{APP}/dcx/a\x07b/json", 404),
        (f"kp1/{APP}/dcx/t/js\x9bon", 404),
        (f"kp1/{APP}/tsx/{'x' * 1024}", 404),
        (f"kp1/{APP}/dcx/unknown/json", 401),
    ],
)
def test_a_refusal_is_told_on_the_error_topic_and_acknowledged(
    worker: WorkerDouble, topic: str, status: int
) -> None:
    device = worker.device()
    device.publish(topic, b"x", 1, 1)
    worker.identify(lambda _: "")
    assert worker.published() == []
    worker.confirm()
    error, puback = device.received()
    assert error.topic == f"{topic}/error"
    assert error.payload.startswith(b'{"statusCode":%d,"reasonPhrase":"' % status)
    assert puback == mqtt.Puback(1)


def test_a_topic_outside_kp1_is_acknowledged_and_counted(worker: WorkerDouble) -> None:
    device = worker.device()
    for topic in ("a", "kp1", "kp2/x", "/kp1/x"):
        device.publish(topic, b"x", 1, 1)
        worker.confirm()
        assert worker.published() == []
        worker.confirm()
        assert device.received() == [mqtt.Puback(1)]
    assert worker.reason("ignored", "not_kp1") == 4


def test_too_many_endpoints_on_one_connection_leave_nothing_behind() -> None:
    with WorkerDouble(endpoints_per_session=2) as worker:
        device = worker.device()
        for number in range(50):
            device.publish(f"kp1/{APP}/dcx/t{number}/json", b"", 1, number + 1)
            worker.identify()
        assert len(worker.published()) == 2
        assert worker.presence.endpoints == {"endpoint-t0", "endpoint-t1"}
        assert len(worker.sessions.endpoints) == 2
        assert worker.reason("refused", "too_many_endpoints") == 48
        worker.confirm()
        assert sum(isinstance(packet, mqtt.Puback) for packet in device.received()) == 50


def test_a_payload_beyond_what_nats_takes_is_413(worker: WorkerDouble) -> None:
    worker.link.resume(1000)
    device = worker.device()
    device.publish(f"kp1/{APP}/tsx/1", bytes(2000), 1, 1)
    (error,) = device.received()
    assert (error.topic, error.payload[:17]) == (f"kp1/{APP}/tsx/1/error", b'{"statusCode":413')
    assert worker.published() == []


# ---------------------------------------------------------------- endpoints, sessions and routes come and go

steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["open", "keep", "drop", "publish", "publish", "publish", "publish", "subscribe", "identify"]
        ),
        st.integers(0, 5),
        st.sampled_from(["a", "a2", "b", "c", "d", "bad"]),
    ),
    max_size=60,
)


def endpoint_of(token: str) -> str:
    """Two tokens may be of one endpoint."""
    return "" if token == "bad" else f"endpoint-{token[0]}"


@settings(max_examples=150, deadline=None)
@given(steps)
def test_no_endpoint_outlives_its_sessions_and_routes(script: list[tuple[str, int, str]]) -> None:
    capacity = 4
    with WorkerDouble(endpoints_per_session=3, route_cache=capacity) as worker:
        open_devices: list[Device] = []
        names = iter(range(1000))
        for action, number, token in script:
            device = open_devices[number % len(open_devices)] if open_devices else None
            if action in ("open", "keep"):
                open_devices.append(worker.device(f"client-{next(names)}", clean=action == "open"))
            elif action == "identify":
                worker.identify(endpoint_of)
            elif device is None:
                continue
            elif action == "drop":
                open_devices.remove(device)
                device.drop()
            elif action == "publish":
                device.publish(f"kp1/{APP}/dcx/{token}/{number}/x")
            else:
                device.send(mqtt.Subscribe(1, ((f"kp1/{APP}/dcx/{token}/#", 1),)))
            assert worker.router.route_count() <= capacity
            assert worker.sessions.count == len(open_devices) + worker.stored.offline_count()
            assert len(worker.presence.endpoints) <= len(worker.sessions.endpoints)
        for device in open_devices:
            device.drop()
        worker.identify(endpoint_of)
        assert worker.presence.endpoints == set()
        assert worker.sessions.count == worker.stored.offline_count()
        worker.loop.now += 10_000
        worker.stored.expire(worker.loop.now)
        assert worker.sessions.count == 0
        # Paths without endpoints push every other route out of the cache.
        last = worker.device()
        for number in range(2 * capacity):
            last.publish(f"kp1/{APP}/tsx/{number}/x")
        assert worker.router.route_count() <= capacity
        assert len(worker.sessions.endpoints) == 0


def test_a_slot_that_is_used_again_has_another_key(worker: WorkerDouble) -> None:
    keys = set()
    for _ in range(300):
        device = worker.device()
        device.publish(f"kp1/{APP}/tsx")
        ((_, data),) = worker.published()
        decoded = worker.correlator.decode(data.correlation_id.encode())
        assert decoded is not None
        keys.add(decoded[0])
        device.drop()
        device.close_sockets()
    assert len(keys) == 300
    assert len({key >> 12 for key in keys}) == 1
