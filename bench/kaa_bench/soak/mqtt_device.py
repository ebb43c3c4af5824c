"""The MQTT devices of a soak: a window of messages at one QoS, with their numbers as request IDs."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from kaa_bench import mqtt_packets as mqtt
from kaa_bench.processes import HOST
from kaa_bench.soak.checker import Promises
from kaa_bench.soak.devices import Device

CONNECT_TIMEOUT_S = 5.0
WINDOW = 16
PACKET_IDS = 65_535
PING_S = 2.0
"""Seconds between PINGREQs; a device leaves a gateway that is silent for twice as long."""


class MqttDevice(Device):
    """A device with at most `WINDOW` unacknowledged messages, which it sends again after a reconnect."""

    qos: ClassVar[int]

    def __init_subclass__(cls) -> None:
        cls.kind = f"MQTT QoS {cls.qos}"

    async def session(self) -> None:
        """See `Device.session`."""
        reader, writer = await asyncio.wait_for(asyncio.open_connection(HOST, self.port), CONNECT_TIMEOUT_S)
        connection = Connection(reader, writer)
        try:
            connection.send(mqtt.Connect(self.token, keep_alive=30))
            connack = await asyncio.wait_for(connection.receive(), CONNECT_TIMEOUT_S)
            if not isinstance(connack, mqtt.Connack) or connack.return_code:
                raise ConnectionError(f"refused: {connack}")
            for number, released in self._outstanding.items():
                connection.send(
                    mqtt.Pubrel(_packet_id(number)) if released else self._publish(number, again=True)
                )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send(connection))
                tasks.create_task(ping(connection))
                tasks.create_task(self._receive(connection))
        except* OSError as failures:
            raise ConnectionError("the connection has ended") from failures
        finally:
            writer.transport.abort()

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._outstanding: dict[int, bool] = {}
        """The unacknowledged messages in order: whether PUBREC has arrived, by number."""

    def _publish(self, number: int, *, again: bool = False) -> mqtt.Publish:
        packet_id = _packet_id(number) if self.qos else 0
        return mqtt.Publish(f"{self.path}/{number}", self.payload(number), self.qos, packet_id, again)

    async def _send(self, connection: Connection) -> None:
        while True:
            await self.may_send()
            if len(self._outstanding) >= WINDOW:
                continue
            number = self.history.send()
            if self.qos:
                self._outstanding[number] = False
            connection.send(self._publish(number))
            await connection.drain()

    async def _receive(self, connection: Connection) -> None:
        while True:
            packet = await asyncio.wait_for(connection.receive(), 2 * PING_S)
            if isinstance(packet, mqtt.Publish):
                *_, number, last = packet.topic.split("/")
                if last == "status":
                    self.answered(int(number), packet.payload)
                else:
                    self.history.refuse(int(number))
                if packet.qos == 1:
                    connection.send(mqtt.Puback(packet.packet_id))
                elif packet.qos == 2:
                    connection.send(mqtt.Pubrec(packet.packet_id))
            elif isinstance(packet, mqtt.Puback | mqtt.Pubrec | mqtt.Pubcomp):
                self._acknowledged(connection, packet)
            elif isinstance(packet, mqtt.Pubrel):
                connection.send(mqtt.Pubcomp(packet.packet_id))

    def _acknowledged(self, connection: Connection, packet: mqtt.Puback | mqtt.Pubrec | mqtt.Pubcomp) -> None:
        number = next((n for n in self._outstanding if _packet_id(n) == packet.packet_id), None)
        if number is None:
            return
        self.history.acknowledge(number)
        if isinstance(packet, mqtt.Pubrec):
            self._outstanding[number] = True
            connection.send(mqtt.Pubrel(packet.packet_id))
        else:
            del self._outstanding[number]


class Qos0Device(MqttDevice):
    """A device of QoS 0: no message is acknowledged."""

    qos = 0


class Qos1Device(MqttDevice):
    """A device of QoS 1."""

    qos = 1


class Qos2Device(MqttDevice):
    """A device of QoS 2, with exactly-once delivery within a connection."""

    promises = Promises(once=True)

    qos = 2


class Connection:
    """Packets over a TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unread = b""

    def send(self, packet: mqtt.Packet) -> None:
        """Write a packet. Raise ConnectionError if the connection has ended."""
        if self._writer.is_closing():
            raise ConnectionError("the connection has ended")
        self._writer.write(mqtt.encode(packet))

    async def drain(self) -> None:
        """Wait until there is room for output."""
        await self._writer.drain()

    async def receive(self) -> mqtt.Packet:
        """Return the next packet. Raise ConnectionError if the gateway closes."""
        while True:
            packet, consumed = mqtt.decode(self._unread)
            if packet is not None:
                self._unread = self._unread[consumed:]
                return packet
            data = await self._reader.read(65536)
            if not data:
                raise ConnectionError("the gateway has closed")
            self._unread += data


async def ping(connection: Connection) -> None:
    """Send PINGREQs until cancelled."""
    while True:
        await asyncio.sleep(PING_S)
        connection.send(mqtt.Pingreq())


def _packet_id(number: int) -> int:
    return number % PACKET_IDS + 1
