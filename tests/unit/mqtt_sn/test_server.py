"""The MQTT-SN server in a worker double, on a real socket and a clock of its own: ADVERTISE and time."""

import gc
import socket
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from kaa_gateway.identity.clients import Client
from kaa_gateway.mqtt_sn.server import MqttSnServer
from kaa_gateway.mqtt_sn.settings import MqttSnSettings
from kaa_gateway.mqtt_sn.topics import TopicMemory
from kaa_gateway.net.udp import UdpSocket

from tests.support.mqtt_sn import (
    CLEAN,
    CONNACK,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PREDEFINED,
    PUBACK,
    REGACK,
    REGISTER,
    WILL,
    WILLMSG,
    WILLMSGREQ,
    WILLMSGRESP,
    WILLMSGUPD,
    WILLTOPIC,
    WILLTOPICREQ,
    WILLTOPICRESP,
    WILLTOPICUPD,
    acknowledgement,
    connect,
    message,
    number,
    publish,
    subscribe,
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
        self.topic_memory = TopicMemory(8192)
        self.settings = MqttSnSettings(**SETTINGS)
        self.core = MqttSnServer(
            loop,
            self.mqtt,
            self.uplink,
            self.counters,
            self.settings,
            self.topic_memory,
            encrypted=False,
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


def flood(worker: SnWorker, first: int, *messages: bytes, count: int) -> None:
    """Send messages, each set from another address."""
    for each in range(first, first + count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forged:
            forged.bind((f"127.1.{each >> 8}.{each & 0xFF}", 0))
            forged.connect((HOST, worker.udp.port))
            for datagram in messages:
                forged.send(datagram.replace(b"NUMBER", b"%06d" % each))
            worker.udp.on_readable()
            while worker._admissions:
                worker._admissions.pop().set_result(Client())
                worker.loop.run()
            worker.loop.run()


def clients_in_memory() -> int:
    return sum(type(each).__name__ == "MqttSnPeer" for each in gc.get_objects())


def timers_in_memory() -> int:
    return sum(
        type(each) is tuple and len(each) == 3 and type(each[2]).__name__ == "MqttSnPeer"
        for each in gc.get_objects()
    )


@pytest.mark.parametrize("flags", [CLEAN, 0, CLEAN | WILL])
def test_connects_of_forged_addresses_leave_little(worker: SnWorker, flags: int) -> None:
    gc.collect()
    before = clients_in_memory()
    forged = connect("deviceNUMBER", flags=flags, duration=60_000)
    flood(worker, 0, forged, message(REGISTER, number(0) + number(1) + b"a" * 900), count=5000)
    assert worker.core.count() == SETTINGS["peers"]
    assert worker.reason("closed", "mqtt_sn_evicted") == 5000 - SETTINGS["peers"]
    # Timers of clients that have gone are dropped, though they are not due.
    assert clients_in_memory() - before < 1100


def test_repeated_timers_of_a_client_are_dropped(worker: SnWorker) -> None:
    """A client may need an earlier timer again and again."""
    gc.collect()
    before = timers_in_memory()
    assert worker.ask(connect("dev", duration=60_000)) == [message(CONNACK, b"\0")]
    worker.pass_time(11)  # that of the connect timeout
    for number_ in range(1, 4000):
        worker.ask(connect("dev", duration=60_000 - number_))
    assert 0 < timers_in_memory() - before < 1100


def test_another_connect_of_an_address_brings_it_no_credit(worker: SnWorker) -> None:
    """Answers to forged CONNECTs of one address are at most three times their bytes, and 256 bytes."""
    sent = received = 0
    for each in range(200):
        datagrams = (
            connect(f"d{each}"),
            publish(1, b"", kind=PREDEFINED),
            message(REGISTER, number(0) + number(1) + b"t" * 90),
        )
        sent += sum(map(len, datagrams))
        received += sum(map(len, worker.ask(*datagrams)))
        worker.identify()
        received += sum(map(len, worker.received()))
    assert 0 < received <= 3 * sent + 256


def test_what_a_client_makes_the_gateway_keep_is_small(worker: SnWorker) -> None:
    """Only a PUBLISH may be larger than max-message-size."""
    large = "x" * 1000
    for refused in (
        connect(large),
        message(REGISTER, number(0) + number(1) + large.encode()),
        message(WILLTOPIC, b"\0" + large.encode()),
        message(WILLMSG, large.encode()),
        subscribe(1, large),
        message(PINGREQ, large.encode()),
    ):
        assert worker.ask(refused) == []
    assert worker.reason("dropped", "mqtt_sn_message_too_large") == 6
    assert worker.ask(connect("dev")) == [message(CONNACK, b"\0")]
    assert worker.ask(publish(9, b"x" * 60_000, kind=PREDEFINED)) == [acknowledgement(PUBACK, 9, 0, 2)]


HOSTILE_LENGTHS = [
    b"\x00", b"\x01", b"\x02", b"\x00\x00", b"\x01\x00", b"\x01\x00\x00", b"\x01\x00\x02\x16", b"\x01\x00\x00\x16",
    b"\x01\x00\x03\x16", b"\x01\xff\xff\x16", b"\x03\x16", b"\xff\x16", b"\x01\x00\x05\x16",
]  # fmt: skip


def test_lengths_that_are_wrong_are_dropped(worker: SnWorker) -> None:
    assert worker.ask(connect("dev")) == [message(CONNACK, b"\0")]
    for datagram in HOSTILE_LENGTHS:
        assert worker.ask(datagram) == [], datagram
    assert worker.reason("dropped", "mqtt_sn_length") == len(HOSTILE_LENGTHS)
    # The length of three bytes is valid where one byte would do.
    assert worker.ask(b"\x01\x00\x04\x16") == [message(PINGRESP)]


def test_a_forwarder_in_a_forwarder_is_dropped(worker: SnWorker) -> None:
    header = b"\x04\xfe\x00a"
    assert worker.ask(header + connect("dev")) == [header + message(CONNACK, b"\0")]
    assert (
        worker.ask(header * 2 + connect("dev2"), header * 3 + message(PINGREQ), header, b"\x03\xfe\x00") == []
    )
    assert worker.ask(b"\x02\xfe" + message(PINGREQ), b"\x00\xfe" + message(PINGREQ), b"\xff\xfe\x00") == []
    assert worker.core.count() == 1


def test_wills_out_of_order(worker: SnWorker) -> None:
    topic, text = message(WILLTOPIC, b"\0kp1/a"), message(WILLMSG, b"gone")
    # Of no connection.
    assert worker.ask(topic, text) == [message(DISCONNECT)] * 2
    assert (
        worker.ask(message(WILLTOPICUPD, b"\0kp1/a"), message(WILLMSGUPD, b"x")) == [message(DISCONNECT)] * 2
    )
    # The message before the topic, and what is for a connection.
    assert worker.ask(connect("dev", flags=CLEAN | WILL), text) == [message(WILLTOPICREQ)]
    assert worker.ask(message(WILLMSGUPD, b"x"), message(PINGREQ), publish(1, b"", qos=1, message_id=1)) == []
    assert worker.ask(message(WILLTOPIC, b"\x60kp1/a")) == []  # no QoS
    assert worker.ask(topic, topic, connect("dev", flags=CLEAN | WILL)) == [
        message(WILLMSGREQ), message(WILLMSGREQ), message(WILLTOPICREQ),
    ]  # fmt: skip
    assert worker.ask(text) == []
    assert worker.ask(topic, text) == [message(WILLMSGREQ), message(CONNACK, b"\0")]
    # Repetitions come late.
    assert worker.ask(topic, text) == []
    assert worker.ask(message(WILLTOPICUPD, b"\x60kp1/a")) == []
    assert worker.ask(message(WILLTOPICUPD), message(WILLMSGUPD, b"x")) == [
        message(WILLTOPICRESP, b"\0"), message(WILLMSGRESP, b"\3"),
    ]  # fmt: skip


def test_predefined_topics_cost_no_memory_for_each_client(worker: SnWorker) -> None:
    topics = {each: f"kp1/app_v1/dcx/{{client-id}}/json/{each}" for each in range(1, 101)}
    worker.settings.set(**SETTINGS | {"predefined": topics})
    worker.ask(connect("warm-up", duration=600))
    tracemalloc.start()
    worker.ask(connect("x" * 900, duration=600))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 50_000
    worker.ask(connect("dev", duration=600))
    assert worker.ask(publish(100, b"x", qos=1, message_id=3, kind=PREDEFINED)) == []
    worker.identify()
    worker.confirm()
    assert worker.received() == [acknowledgement(PUBACK, 100, 3)]


def test_topics_of_all_clients_are_bounded(worker: SnWorker) -> None:
    """For each topic, 256 bytes and its length count; the last one may exceed the limit."""
    topic = b"t" * 300

    def register() -> bytes:
        return worker.ask(message(REGISTER, number(0) + number(1) + topic + b"%d" % len(registered)))[0]

    registered: list[bytes] = []
    for client in ("a", "b"):
        assert worker.ask(connect(client, duration=600)) == [message(CONNACK, b"\0")]
        assert worker.topic_memory.bytes() == 0  # those of the client before are gone
        registered.clear()
        while len(registered) < 8:
            registered.append(register())
        assert acknowledgement(REGACK, 8, 1) in registered
    worker.topic_memory.set_limit(8 * 557)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.connect((HOST, worker.udp.port))
        other.settimeout(30)

        def ask(datagram: bytes) -> bytes:
            other.send(datagram)
            worker.udp.on_readable()
            while worker._admissions:
                worker._admissions.pop().set_result(Client())
                worker.loop.run()
            worker.loop.run()
            return other.recv(1000)

        assert ask(connect("c", duration=600)) == message(CONNACK, b"\0")
        one = message(REGISTER, number(0) + number(1) + b"kp1/app_v1/dcx/c/json")
        assert ask(one) == acknowledgement(REGACK, 0, 1, 1)
        assert ask(subscribe(2, "kp1/app_v1/dcx/c/json"))[-1:] == b"\1"
        assert worker.reason("refused", "mqtt_sn_topic_memory") == 2
        # When the other client goes, there is room.
        assert worker.ask(message(DISCONNECT)) == [message(DISCONNECT)]
        assert worker.topic_memory.bytes() == 0
        assert ask(one) == acknowledgement(REGACK, 1, 1)


def test_other_settings_hold_from_now_on(worker: SnWorker) -> None:
    assert worker.ask(connect("dev", duration=600)) == [message(CONNACK, b"\0")]
    assert worker.ask(publish(3, b"x", qos=1, message_id=3, kind=PREDEFINED)) == [
        acknowledgement(PUBACK, 3, 3, 2)
    ]
    worker.settings.set(**SETTINGS | {"peers": 8, "predefined": {3: "kp1/app_v1/dcx/other/json"}})
    worker.ask(message(DISCONNECT))
    assert worker.ask(connect("dev", duration=600)) == [message(CONNACK, b"\0")]
    assert worker.ask(publish(3, b"x", qos=1, message_id=3, kind=PREDEFINED)) == []
    worker.identify()
    worker.confirm()
    assert worker.received() == [acknowledgement(PUBACK, 3, 3)]
    # For publishers without a connection as well.
    worker.ask(message(DISCONNECT))
    worker.ask(publish(2, b"x", qos=-1, kind=PREDEFINED))
    assert worker.reason("dropped", "mqtt_sn_unknown_topic_id") == 1
    worker.ask(publish(3, b"y", qos=-1, kind=PREDEFINED))
    assert len(worker.published()) == 2


def test_floods_of_one_client_are_bounded(worker: SnWorker) -> None:
    assert worker.ask(connect("dev", duration=600)) == [message(CONNACK, b"\0")]
    topics = [worker.ask(message(REGISTER, number(0) + number(1) + b"t/%d" % each))[0] for each in range(300)]
    assert topics.count(acknowledgement(REGACK, 0, 1, 1)) == 300 - SETTINGS["topics"]
    assert worker.reason("refused", "mqtt_sn_too_many_topics") == 300 - SETTINGS["topics"]
    answers = [
        each
        for number_ in range(1, 301)
        for each in worker.ask(publish(1, b"x", qos=1, message_id=number_, kind=PREDEFINED))
    ]
    assert answers == [acknowledgement(PUBACK, 1, each, 1) for each in range(17, 301)]
    assert worker.core.count() == 1
