"""CONNECT at its limits (MQTT 3.1.1 section 3.1), and what MQTT 3.1 ignores in it."""

from collections.abc import Iterator

import pytest
from kaa_bench.mqtt_packets import Connack, Connect, Disconnect, Pingreq, Pingresp, Publish, Will, encode

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import WorkerDouble

MIB = 1024 * 1024
FIELD = "x" * 65_535
V3_1 = "0006 4d5149736470 03"


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble(packet_size=MIB) as double:
        yield double


def send_all(device: Device, worker: WorkerDouble, data: bytes) -> None:
    """More than a socket takes at once."""
    for at in range(0, len(data), 65_536):
        device.send_bytes(data[at : at + 65_536])
        worker.loop.run()


@pytest.mark.parametrize("level", [3, 4])
def test_the_largest_legal_connect_is_accepted(worker: WorkerDouble, level: int) -> None:
    connect = Connect(FIELD, True, 60, Will(FIELD, FIELD.encode()), FIELD, FIELD.encode(), level)
    device = worker.unconnected()
    send_all(device, worker, encode(connect))
    worker.admit()
    assert device.received() == [Connack(False, 0)]


def test_nobody_is_asked_about_a_client_if_authentication_is_off() -> None:
    with WorkerDouble(client_authentication="off") as worker:
        device = worker.unconnected()
        device.send(Connect("id", True, 60, None, "user", b"password"))
        assert device.received() == [Connack(False, 0)]
        session = worker.sessions.at(0)
        assert session is not None
        assert session.principal == ""


def test_a_longer_connect_is_refused_at_its_fixed_header(worker: WorkerDouble) -> None:
    device = worker.unconnected()
    device.send_bytes(bytes.fromhex("10 9a8014"))  # 327,706 bytes behind it
    assert device.closed
    assert worker.reason("closed", "mqtt_packet_too_large") == 1


def test_the_limit_of_connect_ends_with_connect(worker: WorkerDouble) -> None:
    """A large PUBLISH in the same segment as CONNECT, or in the next."""
    device = worker.unconnected()
    publish = encode(Publish("outside", bytes(600_000)))
    first = encode(Connect("id", keep_alive=0)) + publish
    device.send_bytes(first[:10_000])  # the rest is not read before the client is admitted
    worker.admit()
    assert device.received() == [Connack(False, 0)]
    send_all(device, worker, first[10_000:] + publish)
    device.send(Pingreq())
    assert device.received() == [Pingresp()]
    assert worker.counters.by_protocol()["messages_in"]["mqtt"] == 2


@pytest.mark.parametrize("first", [0x10, 0x11, 0x18, 0x1F])
@pytest.mark.parametrize("flags", ["02", "03"])
def test_mqtt_3_1_ignores_the_flags_of_connect(worker: WorkerDouble, first: int, flags: str) -> None:
    """V3.1 sections 2.1 and 3.1: DUP, QoS and RETAIN are not used, bit 0 of the connect flags is reserved."""
    device = worker.unconnected()
    device.send_bytes(bytes([first]) + bytes.fromhex(f"0f {V3_1} {flags} 0000 0001 61"))
    worker.admit()
    assert device.received() == [Connack(False, 0)]
    device.send_bytes(b"\xc8\x00")  # PINGREQ with DUP
    assert device.received() == [Pingresp()]
    device.send_bytes(b"\xe1\x00")  # DISCONNECT with RETAIN
    assert device.closed
    assert worker.counters.by_reason() == {}


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        ("110c 0004", "mqtt_first_packet_not_connect"),
        ("1603010200", "mqtt_first_packet_not_connect"),  # a ClientHello of TLS
        ("100c 0004 4d515454 04 03 0000 0000", "mqtt_reserved_connect_flag"),
        ("00", "mqtt_first_packet_not_connect"),
        ("20", "mqtt_first_packet_not_connect"),
    ],
)
def test_mqtt_3_1_1_does_not(worker: WorkerDouble, octets: str, reason: str) -> None:
    device = worker.unconnected()
    device.send_bytes(bytes.fromhex(octets))
    assert device.closed
    assert worker.reason("closed", reason) == 1


def test_disconnect_with_flags_is_a_violation_in_3_1_1(worker: WorkerDouble) -> None:
    device = worker.device("id")
    device.send_bytes(bytes([encode(Disconnect())[0] | 1, 0]))
    assert device.closed
    assert worker.reason("closed", "mqtt_reserved_flags") == 1
