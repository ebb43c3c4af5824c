"""Our MQTT codec against paho's: what paho writes we read, what we write paho reads. No gateway here, only bytes."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest
from kaa_bench import mqtt_packets as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

HOST = "127.0.0.1"
TIMEOUT_S = 20.0
POLL_S = 0.01


class Peer:
    """The server's end of paho's connection, played with our codec."""

    def __init__(self, client: paho.Client, connection: socket.socket, level: int) -> None:
        self.client = client
        self._connection = connection
        self._level = level
        self._received = b""
        self._deadline = time.monotonic() + TIMEOUT_S

    def next_packet(self) -> object:
        """The next packet of paho's, which reads and writes until it is here."""
        while True:
            packet, consumed = mqtt.decode(self._received, self._level)
            if packet is not None:
                self._received = self._received[consumed:]
                return packet
            self._loop()

    def send(self, *packets: Any) -> None:
        """Write packets, which paho will read."""
        self._connection.sendall(b"".join(mqtt.encode(packet, self._level) for packet in packets))

    def wait(self, condition: Callable[[], bool]) -> None:
        """Let paho read and write until the condition holds."""
        while not condition():
            self._loop()

    def _loop(self) -> None:
        assert time.monotonic() < self._deadline, "paho did not do what was waited for"
        self.client.loop(timeout=POLL_S)
        with contextlib.suppress(BlockingIOError):
            self._received += self._connection.recv(65_536)


@contextlib.contextmanager
def connected(level: int, **options: Any) -> Iterator[tuple[Peer, mqtt.Connect]]:
    """A paho client, connected to us, and the CONNECT that it sent."""
    protocol = MQTTProtocolVersion.MQTTv31 if level == mqtt.LEVEL_3_1 else MQTTProtocolVersion.MQTTv311
    client = paho.Client(CallbackAPIVersion.VERSION2, "paho-1", clean_session=False, protocol=protocol)
    if "will" in options:
        will = options["will"]
        client.will_set(will.topic, will.message, will.qos, will.retain)
    if "user_name" in options:
        client.username_pw_set(options["user_name"], options["password"])
    with socket.create_server((HOST, 0)) as server:
        server.settimeout(TIMEOUT_S)
        client.connect(HOST, server.getsockname()[1], keepalive=30)
        connection, _ = server.accept()
        with connection:
            connection.setblocking(False)
            peer = Peer(client, connection, level)
            connect = peer.next_packet()
            assert isinstance(connect, mqtt.Connect)
            peer.send(mqtt.Connack(False, 0))
            peer.wait(client.is_connected)
            yield peer, connect


both_levels = pytest.mark.parametrize("level", [mqtt.LEVEL_3_1, mqtt.LEVEL_3_1_1])


@both_levels
@pytest.mark.parametrize("will", [None, mqtt.Will("w/ü", b"\x00\xff", 2, True), mqtt.Will("w", b"", 1)])
@pytest.mark.parametrize("user_name", [None, "", "jürgen"])
def test_connect(level: int, will: mqtt.Will | None, user_name: str | None) -> None:
    options: dict[str, Any] = {} if will is None else {"will": will}
    if user_name is not None:
        options |= {"user_name": user_name, "password": "pässword"}
    with connected(level, **options) as (_, connect):
        assert connect == mqtt.Connect(
            "paho-1", False, 30, will, user_name, None if user_name is None else "pässword".encode(), level
        )


@both_levels
@pytest.mark.parametrize("payload", [b"", b"\x00\xff", bytes(130), bytes(70_000)])
def test_publish_from_paho_at_each_qos(level: int, payload: bytes) -> None:
    with connected(level) as (peer, _):
        client = peer.client
        client.publish("a/ü", payload, 0, retain=True)
        assert peer.next_packet() == mqtt.Publish("a/ü", payload, retain=True)
        info = client.publish("a/ü", payload, 1)
        assert peer.next_packet() == mqtt.Publish("a/ü", payload, 1, info.mid)
        peer.send(mqtt.Puback(info.mid))
        peer.wait(info.is_published)
        info = client.publish("a/ü", payload, 2)
        assert peer.next_packet() == mqtt.Publish("a/ü", payload, 2, info.mid)
        peer.send(mqtt.Pubrec(info.mid))
        assert peer.next_packet() == mqtt.Pubrel(info.mid)
        peer.send(mqtt.Pubcomp(info.mid))
        peer.wait(info.is_published)
        client.disconnect()
        assert peer.next_packet() == mqtt.Disconnect()


@both_levels
@pytest.mark.parametrize("payload", [b"", b"\x00\xff", bytes(130), bytes(70_000)])
def test_publish_to_paho_at_each_qos(level: int, payload: bytes) -> None:
    received: list[tuple[str, bytes, int, bool]] = []
    with connected(level) as (peer, _):
        peer.client.on_message = lambda _client, _data, message: received.append(
            (message.topic, bytes(message.payload), message.qos, message.retain)
        )
        peer.send(
            mqtt.Publish("a/ü", payload, retain=True),
            mqtt.Publish("a/ü", payload, 1, 65_535),
            mqtt.Publish("a/ü", payload, 2, 1),
        )
        assert peer.next_packet() == mqtt.Puback(65_535)
        assert peer.next_packet() == mqtt.Pubrec(1)
        peer.send(mqtt.Pubrel(1))
        assert peer.next_packet() == mqtt.Pubcomp(1)
    assert received == [("a/ü", payload, 0, True), ("a/ü", payload, 1, False), ("a/ü", payload, 2, False)]


@both_levels
def test_subscribe_and_unsubscribe_of_paho(level: int) -> None:
    granted: list[list[int]] = []
    done: list[int] = []
    with connected(level) as (peer, _):
        client = peer.client
        client.on_subscribe = lambda _c, _d, _mid, codes, _p: granted.append([code.value for code in codes])
        client.on_unsubscribe = lambda _c, _d, mid, _codes, _p: done.append(mid)
        _, mid = client.subscribe([("a/+/#", 2), ("ü", 0)])
        assert isinstance(mid, int)
        assert peer.next_packet() == mqtt.Subscribe(mid, (("a/+/#", 2), ("ü", 0)))
        peer.send(mqtt.Suback(mid, (1, 0x80)))
        peer.wait(lambda: bool(granted))
        _, mid = client.unsubscribe(["a/+/#", "ü"])
        assert isinstance(mid, int)
        assert peer.next_packet() == mqtt.Unsubscribe(mid, ("a/+/#", "ü"))
        peer.send(mqtt.Unsuback(mid))
        peer.wait(lambda: done == [mid])
    assert granted == [[1, 0x80]]
