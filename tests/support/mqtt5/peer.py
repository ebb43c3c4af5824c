"""One MQTT 5 connection over which a test sends bare packets, legal or not, and sees what comes back.

Acknowledgements are up to the test.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from tests.support.mqtt5 import codec
from tests.support.mqtt5.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
)
from tests.support.mqtt5.properties import Property
from tests.support.nats import HOST

RECEIVE_TIMEOUT_S = 20.0

AnyPacket = TypeVar("AnyPacket", bound=Packet)


class Mqtt5Peer:
    """A connection. A packet of another kind than a test expects fails the test, as does an illegal one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unread = b""
        self._aliases: dict[int, str] = {}
        self.bytes_received: list[int] = []
        """The size of each packet that was received."""

    async def send(self, *sent: Packet | bytes) -> None:
        """Write packets, or bytes as they are, in one go. ConnectionError if the connection has ended."""
        if self._writer.is_closing():
            raise ConnectionResetError("the connection has ended")
        self._writer.write(b"".join(each if isinstance(each, bytes) else codec.encode(each) for each in sent))
        await self._writer.drain()

    async def receive(self, timeout_s: float = RECEIVE_TIMEOUT_S) -> Packet | None:
        """Return the next packet, or None when the server has closed the connection."""
        while True:
            received, size = codec.decode(self._unread)
            if received is not None:
                self._unread = self._unread[size:]
                self.bytes_received.append(size)
                return received
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
        received = await self.receive()
        assert isinstance(received, kind), f"expected {kind.__name__}, got {received!r}"
        return received

    async def connect(self, client_id: str = "", **fields: Any) -> Connack:
        """Send CONNECT, and return the CONNACK that answers it; keep-alive is off unless given."""
        await self.send(Connect(client_id, **fields))
        return await self.expect(Connack)

    async def subscribe(
        self, *topic_filters: str, options: int = 0, identifier: int | None = None
    ) -> tuple[int, ...]:
        """Send SUBSCRIBE, and return the reason codes of its SUBACK."""
        properties = () if identifier is None else ((Property.SUBSCRIPTION_IDENTIFIER, identifier),)
        entries = tuple((name, options) for name in topic_filters)
        await self.send(Subscribe(1, entries, properties=properties))
        return (await self.expect(Suback)).reason_codes

    async def until_pingresp(self) -> list[Packet]:
        """Send PINGREQ, and return all that comes before its PINGRESP."""
        await self.send(Pingreq())
        received: list[Packet] = []
        while not isinstance(each := await self.receive(), Pingresp):
            assert each is not None, "the server has closed the connection"
            received.append(each)
        return received

    async def until_closed(self) -> list[Packet]:
        """Return what comes before the server closes the connection. After DISCONNECT nothing may come."""
        received: list[Packet] = []
        while (each := await self.receive()) is not None:
            assert not received or not isinstance(received[-1], Disconnect), "MQTT-3.14.4-1"
            received.append(each)
        return received

    async def until_disconnect(self) -> Disconnect:
        """Return the DISCONNECT with which the server closes the connection, and nothing else before."""
        received = await self.until_closed()
        assert len(received) == 1, received
        (disconnect,) = received
        assert isinstance(disconnect, Disconnect), disconnect
        return disconnect

    async def refusal(self) -> int | None:
        """Return the reason code with which the server ends the connection, None if it just closes it.

        It is that of a CONNACK or a DISCONNECT, which is then the last packet.
        """
        received = await self.until_closed()
        if not received:
            return None
        last = received[-1]
        assert isinstance(last, Connack | Disconnect), received
        return last.reason_code

    async def rest(self) -> bytes:
        """Return the bytes that come before the server closes the connection, whatever they are."""
        rest, self._unread = self._unread, b""
        while data := await asyncio.wait_for(self._reader.read(65536), RECEIVE_TIMEOUT_S):
            rest += data
        return rest

    def topic_of(self, publish: Publish) -> str:
        """Return the topic of a message of the server, and remember the alias that it sets (3.3.2.3.4)."""
        alias = publish.get(Property.TOPIC_ALIAS)
        if alias is None:
            return publish.topic
        if publish.topic:
            self._aliases[alias] = publish.topic
        return self._aliases[alias]

    def at_eof(self) -> bool:
        """Return whether the server has closed the connection, with what may still be received."""
        return bool(self._reader._eof)  # type: ignore[attr-defined]

    async def end_output(self) -> None:
        """Close our direction of the connection only."""
        self._writer.write_eof()

    async def abort(self) -> None:
        """Go without a DISCONNECT, with a reset."""
        self._writer.transport.abort()


@asynccontextmanager
async def mqtt5_peer(port: int) -> AsyncIterator[Mqtt5Peer]:
    """Open a connection that has sent nothing yet."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield Mqtt5Peer(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def mqtt5_client(port: int, client_id: str = "", **fields: Any) -> AsyncIterator[Mqtt5Peer]:
    """Open a connection whose CONNECT has been accepted, with a clean start unless told otherwise."""
    async with mqtt5_peer(port) as peer:
        connack = await peer.connect(client_id, **fields)
        assert connack.reason_code == 0, connack
        yield peer
