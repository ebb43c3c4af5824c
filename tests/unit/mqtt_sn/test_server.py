"""The MQTT-SN server in a worker double, on a real socket and a clock of its own: ADVERTISE and time."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from kaa_gateway.identity.clients import Client
from kaa_gateway.mqtt_sn.server import MqttSnServer
from kaa_gateway.mqtt_sn.settings import MqttSnSettings
from kaa_gateway.net.udp import UdpSocket

from tests.support.mqtt_sn import (
    CONNACK,
    DISCONNECT,
    PINGREQ,
    PREDEFINED,
    PUBACK,
    acknowledgement,
    connect,
    message,
    number,
    publish,
)
from tests.support.nats import HOST
from tests.unit.kp.worker_double import WorkerDouble

SETTINGS: dict[str, Any] = {
    "gateway_id": 9, "retry_timeout": 10.0, "retries": 3, "connect_timeout": 10.0, "peers": 8, "topics": 8,
    "buffered_messages": 4, "buffered_bytes": 1000, "message_size": 1000,
    "predefined": {1: "kp1/app_v1/dcx/{client-id}/json", 2: "kp1/app_v1/dcx/fixed/json"},
}  # fmt: skip


class SnWorker(WorkerDouble):
    """A worker with MQTT-SN, and a device."""

    def __init__(self) -> None:
        super().__init__()
        loop: Any = self.loop
        self.core = MqttSnServer(
            loop, self.mqtt, self.uplink, self.counters, MqttSnSettings(**SETTINGS), encrypted=False
        )
        self.udp = UdpSocket(loop, self.core, self.counters)
        self.udp.start(HOST, 0, reuse_port=False)
        self.device = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)  # type: ignore[assignment]
        self.device_socket.connect((HOST, self.udp.port))

    @property
    def device_socket(self) -> socket.socket:
        found: Any = self.device
        assert isinstance(found, socket.socket)
        return found

    def ask(self, *messages: bytes) -> list[bytes]:
        """Send messages, and return what comes."""
        for each in messages:
            self.device_socket.send(each)
            self.udp.on_readable()
            while self._admissions:
                self._admissions.pop().set_result(Client())
                self.loop.run()
        self.loop.run()
        return self.received()

    def received(self) -> list[bytes]:
        found = []
        try:
            while True:
                found.append(self.device_socket.recv(65536))
        except BlockingIOError:
            return found

    def pass_time(self, seconds: float) -> list[bytes]:
        """Let time pass, and return what comes."""
        self.loop.pass_time(seconds)
        self.udp.check()
        self.loop.run()
        return self.received()


@pytest.fixture
def worker() -> Iterator[SnWorker]:
    worker = SnWorker()
    yield worker
    worker.device_socket.close()
    worker.udp.stop()
    worker.close()


def test_the_gateway_advertises_itself(worker: SnWorker) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as group:
        group.bind((HOST, 0))
        group.settimeout(30)
        worker.core.advertise(HOST, group.getsockname()[1], 900.0)
        worker.pass_time(0.1)
        advertise = bytes.fromhex("05 00 09 0384")
        assert group.recv(100) == advertise
        worker.pass_time(890)
        worker.pass_time(11)
        assert group.recv(100) == advertise
        group.setblocking(False)
        with pytest.raises(BlockingIOError):
            group.recv(100)


def test_keep_alive_is_tolerated_by_half_and_by_a_tenth_above_a_minute(worker: SnWorker) -> None:
    for duration, tolerated in ((40, 60), (100, 110)):
        assert worker.ask(connect("dev", duration=duration)) == [message(CONNACK, b"\0")]
        assert worker.pass_time(tolerated - 1) == []
        assert worker.core.count() == 1
        assert worker.pass_time(2) == [message(DISCONNECT)]
        assert worker.core.count() == 0
    assert worker.reason("closed", "mqtt_keep_alive_timeout") == 2


def test_an_acknowledgement_waits_for_nats(worker: SnWorker) -> None:
    assert worker.ask(connect("dev")) == [message(CONNACK, b"\0")]
    again = publish(1, b"x", qos=1, message_id=3, kind=PREDEFINED, dup=True)
    assert worker.ask(publish(1, b"x", qos=1, message_id=3, kind=PREDEFINED), again) == []
    worker.identify()
    worker.confirm()
    assert worker.received() == [acknowledgement(PUBACK, 1, 3)]
    assert len(worker.published()) == 1
    assert worker.ask(again) == [acknowledgement(PUBACK, 1, 3)]
    assert worker.published() == []


def test_publishers_without_a_connection_are_forgotten(worker: SnWorker) -> None:
    worker.ask(publish(2, b"x", qos=-1, kind=PREDEFINED))
    worker.identify()
    assert worker.sessions.count == 1
    assert worker.core.count() == 1
    worker.pass_time(601)
    assert worker.sessions.count == worker.core.count() == 0
    assert worker.reason("closed", "mqtt_sn_idle") == 1


def test_no_new_clients_while_the_gateway_drains(worker: SnWorker) -> None:
    worker.core.begin_drain()
    assert worker.ask(connect("dev")) == [message(CONNACK, b"\1")]
    worker.ask(publish(2, b"x", qos=-1, kind=PREDEFINED))
    assert worker.reason("dropped", "mqtt_sn_draining") == 1


def test_a_disconnect_from_nobody_is_not_answered(worker: SnWorker) -> None:
    """Else two gateways that have each other's address would answer each other for ever."""
    assert worker.ask(message(DISCONNECT, number(5))) == []
    assert worker.ask(message(DISCONNECT)) == []
    assert worker.ask(message(PINGREQ)) == [message(DISCONNECT)]
