"""Devices of a worker without an event loop: the other ends of its TCP connections."""

import contextlib
import socket
import struct
from typing import Any

from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.net.tcp_listener import TcpListener

from tests.unit.kp.loop_double import Loop

DEVICE_HOST = "192.0.2.1"
DEVICE_PORT = 50_000


def sockaddr(host: str) -> bytes:
    """An address as accept(2) tells it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.inet_pton(family, host.partition("%")[0])
    if family == socket.AF_INET:
        return struct.pack("=HH4s8x", family, socket.htons(DEVICE_PORT), address)
    return struct.pack("=HHI16sI", family, socket.htons(DEVICE_PORT), 0, address, 0)


class Peer:
    """The other end of a connection, which the listener takes for one from `host`."""

    def __init__(self, listener: TcpListener, host: str) -> None:
        self._socket, theirs = socket.socketpair(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.descriptor = theirs.detach()
        """Of the gateway's end, as long as that is open."""
        self.closed = False
        listener.serve_descriptor(self.descriptor, sockaddr(host))

    def send(self, data: bytes) -> None:
        """As much of it as the gateway's socket takes, which reads it when the loop runs."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            self._socket.sendall(data)

    def send_some(self, data: bytes) -> int:
        """As much of it as the gateway's socket takes; how much that is."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def look(self) -> bytes:
        """What has come since the last look."""
        data = b""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while chunk := self._socket.recv(65_536):
                data += chunk
            self.closed = True
        return data

    def read_some(self, size: int) -> bytes:
        """Read so many bytes at most."""
        with contextlib.suppress(BlockingIOError):
            return self._socket.recv(size)
        return b""

    def half_close(self) -> None:
        """Send FIN, and read on."""
        self._socket.shutdown(socket.SHUT_WR)

    def go(self) -> None:
        self._socket.close()


class Device:
    """An MQTT client at the other end of a TCP connection."""

    def __init__(self, loop: Loop, listener: TcpListener, host: str) -> None:
        self._loop = loop
        self._peer = Peer(listener, host)
        self._unseen = b""

    def send(self, *packets: Any) -> None:
        self.send_bytes(b"".join(map(mqtt.encode, packets)))

    def send_bytes(self, data: bytes) -> None:
        self._peer.send(data)
        self._loop.read()

    def publish(self, topic: str, payload: bytes = b"", qos: int = 0, packet_id: int = 0) -> None:
        self.send(mqtt.Publish(topic, payload, qos, packet_id))

    def read_some(self, size: int) -> None:
        """Read so many bytes at most, as a device with a thin link."""
        self._unseen += self._peer.read_some(size)

    def half_close(self) -> None:
        """Send FIN, and read on."""
        self._peer.half_close()
        self._loop.read()

    def received(self) -> list[Any]:
        """What has come since the last call."""
        self._look()
        data, self._unseen = self._unseen, b""
        packets = []
        while data:
            packet, size = mqtt.decode(data)
            assert packet is not None
            packets.append(packet)
            data = data[size:]
        return packets

    def _look(self) -> None:
        self._loop.run()
        while data := self._peer.look():
            self._unseen += data
            self._loop.run()

    @property
    def reading(self) -> bool:
        """Whether the gateway reads what it sends."""
        return self._loop.reads(self._peer.descriptor)

    @property
    def closed(self) -> bool:
        self._look()
        return self._peer.closed

    def leave(self) -> None:
        """The connection is gone, and the gateway has seen that; what it does later is left to the test."""
        self._peer.go()
        self._loop.read()

    def drop(self) -> None:
        """The connection is gone."""
        self._peer.go()
        self._loop.run()

    def close_sockets(self) -> None:
        self._peer.go()
