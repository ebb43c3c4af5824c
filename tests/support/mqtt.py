"""An MQTT client of bare packets: sends what a test says, legal or not, and shows what comes back, packet by packet.

Packets are those of kaa_gateway.wire.mqtt; acknowledgements are up to the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from kaa_bench import mqtt_packets as mqtt
from kaa_bench.mqtt_packets import Connack, Connect, Pingreq, Pingresp, Publish, Suback, Subscribe

from tests.support.nats import HOST

RECEIVE_TIMEOUT_S = 20.0

AnyPacket = TypeVar("AnyPacket", bound="mqtt.Packet")


class MqttPeer:
    """One connection, over which a packet of another kind than a test expects fails the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unread = b""
        self.level = mqtt.LEVEL_3_1_1

    async def send(self, *packets: mqtt.Packet | bytes) -> None:
        """Write packets, or bytes as they are, in one go. ConnectionError if the connection has ended."""
        if self._writer.is_closing():
            # uvloop would raise a RuntimeError of its own.
            raise ConnectionResetError("the connection has ended")
        self._writer.write(
            b"".join(
                packet if isinstance(packet, bytes) else mqtt.encode(packet, self.level) for packet in packets
            )
        )
        await self._writer.drain()

    async def receive(self, timeout_s: float = RECEIVE_TIMEOUT_S) -> mqtt.Packet | None:
        """Return the next packet, or None when the server has closed the connection."""
        while True:
            packet, size = mqtt.decode(self._unread, self.level)
            if packet is not None:
                self._unread = self._unread[size:]
                return packet
            try:
                data = await asyncio.wait_for(self._reader.read(65536), timeout_s)
            except ConnectionResetError:
                data = b""
            if not data:
                assert not self._unread, "the connection was closed within a packet"
                return None
            self._unread += data

    async def expect(self, kind: type[AnyPacket]) -> AnyPacket:
        """Return the next packet, which must be of this kind."""
        packet = await self.receive()
        assert isinstance(packet, kind), f"expected {kind.__name__}, got {packet!r}"
        return packet

    async def connect(self, client_id: str = "", **fields: Any) -> Connack:
        """Send CONNECT, and return the CONNACK that answers it; keep-alive is off unless given."""
        connect = Connect(client_id, **{"keep_alive": 0, **fields})
        self.level = connect.level
        await self.send(connect)
        return await self.expect(Connack)

    async def subscribe(self, *filters: str, qos: int = 0) -> tuple[int, ...]:
        """Send SUBSCRIBE, and return the codes of its SUBACK."""
        await self.send(Subscribe(1, tuple((name, qos) for name in filters)))
        return (await self.expect(Suback)).return_codes

    async def until_pingresp(self) -> list[mqtt.Packet]:
        """Send PINGREQ, and return all that comes before its PINGRESP: what the server had sent when it read this."""
        await self.send(Pingreq())
        received: list[mqtt.Packet] = []
        while not isinstance(packet := await self.receive(), Pingresp):
            assert packet is not None, "the server has closed the connection"
            received.append(packet)
        return received

    async def publishes_until(self, topic: str) -> list[Publish]:
        """Return all PUBLISH packets up to the one with this topic, without it; nothing else may come."""
        received = []
        while (packet := await self.expect(Publish)).topic != topic:
            received.append(packet)
        return received

    async def until_closed(self) -> list[mqtt.Packet]:
        """Return what comes before the server closes the connection."""
        received = []
        while (packet := await self.receive()) is not None:
            received.append(packet)
        return received

    async def end_output(self) -> None:
        """Close our direction of the connection only."""
        self._writer.write_eof()

    async def abort(self) -> None:
        """Go without a DISCONNECT, with a reset."""
        self._writer.transport.abort()


@asynccontextmanager
async def mqtt_peer(port: int) -> AsyncIterator[MqttPeer]:
    """Yield a connection that has sent nothing yet."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield MqttPeer(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def mqtt_client(port: int, client_id: str = "", **fields: Any) -> AsyncIterator[MqttPeer]:
    """Yield a connection whose CONNECT has been accepted, with clean session unless told otherwise."""
    async with mqtt_peer(port) as peer:
        connack = await peer.connect(client_id, **fields)
        assert connack.return_code == 0
        yield peer
