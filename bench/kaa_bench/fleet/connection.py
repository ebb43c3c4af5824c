"""One MQTT connection of a simulated client."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from kaa_bench import mqtt_packets as mqtt
from kaa_bench.processes import HOST

if TYPE_CHECKING:
    from kaa_bench.fleet.credentials import Access

ANSWER_S = 60.0
"""How long a gateway may take to open a connection, and to answer each packet that is to be answered."""
INPUT_SIZE = 65_536
TCP_ESTABLISHED = 1
"""The state of a connection in which no FIN has arrived, as the kernel numbers it (TCP_INFO)."""


class Connection:
    """A connection to `gateway`, which is a number."""

    def __init__(self, gateway: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.gateway = gateway
        self.ended = asyncio.Event()
        self.awaited: dict[int, float] = {}
        """When each packet without SUBACK or PUBACK was sent, as Unix time, by packet identifier; the oldest first."""
        self.answered = asyncio.Event()
        """A PINGREQ has been answered."""
        self.pinging = False
        self.acknowledged: list[int] = []
        """The pushes of QoS 1 whose PUBACK was sent after the last PINGREQ."""
        self.in_doubt: list[int] = []
        """Those before: the PINGRESP will say that the gateway has their PUBACKs."""
        self._reader = reader
        self._writer = writer
        self._unread = b""

    @classmethod
    async def open(cls, gateway: int, access: Access, source: str) -> Connection:
        """Connect from a source address. TimeoutError if that takes longer than ANSWER_S."""
        opening = asyncio.open_connection(
            HOST, access.ports[gateway], local_addr=(source, 0), limit=INPUT_SIZE, ssl=access.context()
        )
        reader, writer = await asyncio.wait_for(opening, ANSWER_S)
        return cls(gateway, reader, writer)

    @property
    def is_open(self) -> bool:
        """Whether the gateway's FIN has not arrived: what the kernel knows, even if it has not been read yet."""
        if self.ended.is_set() or self._writer.is_closing():
            return False
        state = self._writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return bool(state[0] == TCP_ESTABLISHED)

    async def connect(self, client_id: str, access: Access) -> bool:
        """Send CONNECT, and return whether the session is present. OSError if it is refused or not answered in time."""
        self.send(
            mqtt.Connect(
                client_id,
                clean_session=False,
                keep_alive=300,
                user_name=access.user_name,
                password=access.password,
            )
        )
        packet = await asyncio.wait_for(self.receive(), ANSWER_S)
        if not isinstance(packet, mqtt.Connack) or packet.return_code:
            raise ConnectionError(f"refused: {packet}")
        return packet.session_present

    def send(self, packet: mqtt.Packet) -> None:
        """Send a packet; nothing happens if the connection has ended."""
        if not self._writer.is_closing():
            self._writer.write(mqtt.encode(packet))

    def ping(self) -> None:
        """Send PINGREQ, unless one is under way."""
        if not self.pinging:
            self.pinging = True
            self.in_doubt, self.acknowledged = self.acknowledged, []
            self.send(mqtt.Pingreq())

    async def receive(self) -> mqtt.Packet:
        """Return the next packet. OSError at the end."""
        while True:
            packet, consumed = mqtt.decode(self._unread)
            if packet is not None:
                self._unread = self._unread[consumed:]
                return packet
            data = await self._reader.read(INPUT_SIZE)
            if not data:
                raise ConnectionError("the gateway has closed")
            self._unread += data

    def close(self) -> None:
        """Close after what was sent."""
        self._writer.close()

    def abort(self) -> None:
        """End the connection without a word."""
        self._writer.transport.abort()
