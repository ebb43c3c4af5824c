"""The bridge with a broker that breaks MQTT: each connection ends, and the bridge connects again and works.

The broker is a few lines of bytes, because no real one sends these. Source: OASIS MQTT Version 5.0.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.e2e.test_bridge import BridgeProcess
from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.nats import HOST, NatsServer

TOPIC = b"kp1/app_v1/dcx/t1/json"
RECEIVE_MAXIMUM, PACKET_MAX = 20, 4096
TIMEOUT_S = 60.0
CONNACK = b"\x20\x03\x00\x00\x00"


def packet(first: int, body: bytes) -> bytes:
    """Return a packet of MQTT."""
    size, length = len(body), bytearray()
    while True:
        length.append(size % 128 | (128 if size >= 128 else 0))
        size //= 128
        if not size:
            return bytes([first]) + bytes(length) + body


def publish(topic: bytes, payload: bytes = b"{}", *, qos: int = 0, packet_id: int = 0) -> bytes:
    """Return a PUBLISH."""
    number = packet_id.to_bytes(2, "big") if qos else b""
    return packet(0x30 | qos << 1, len(topic).to_bytes(2, "big") + topic + number + b"\x00" + payload)


class HostileBroker:
    """Accepts the bridge and its subscriptions, and then sends `attack`, on the first connection only."""

    def __init__(self, attack: bytes) -> None:
        self._attack = attack
        self.connections = 0
        self.ended = 0
        self.writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        number = self.connections
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                first, body = await read_packet(reader)
                if first >> 4 == 1:
                    writer.write(CONNACK)
                elif first >> 4 == 8:
                    writer.write(packet(0x90, body[:2] + b"\x00\x01"))
                    self.writer = writer
                    if number == 1:
                        writer.write(self._attack)
                        await writer.drain()
        self.ended += 1
        writer.close()


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return first byte and body of the next packet."""
    first = (await reader.readexactly(1))[0]
    size = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return first, await reader.readexactly(size)


@contextlib.asynccontextmanager
async def attacked(url: str, attack: bytes) -> AsyncIterator[tuple[HostileBroker, BridgeProcess]]:
    """Run a bridge whose broker attacks."""
    broker = HostileBroker(attack)
    server = await asyncio.start_server(broker.serve, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    section = {
        "url": f"mqtt://{HOST}:{port}",
        "receive-maximum": RECEIVE_MAXIMUM,
        "max-packet-size": PACKET_MAX,
    }
    process = await asyncio.to_thread(
        lambda: BridgeProcess(url, {"kaa": {"kpc": {"bridge": section}}}).__enter__()
    )
    try:
        yield broker, process
    finally:
        await asyncio.to_thread(process.__exit__, None, None, None)
        server.close()


@pytest.mark.parametrize(
    "attack",
    [
        publish(b"a/+"),
        publish(b""),
        publish(b"a\xff"),
        publish(TOPIC, b"x" * 2 * PACKET_MAX),
        b"\x30\xff\xff\xff\x7f" + bytes(1 << 20),
        b"".join(publish(TOPIC, qos=1, packet_id=number) for number in range(1, 4000)),
        b"".join(publish(TOPIC, qos=2, packet_id=number) for number in range(1, 4000)),
        b"\x30\xff\xff\xff\xff\xff",
        packet(0xF0, b"\x19"),
    ],
    ids=["wildcard", "empty", "utf-8", "size", "endless", "window", "qos-2", "length", "auth"],
)
async def test_a_violation_ends_the_connection(nats_server: NatsServer, attack: bytes) -> None:
    async with (
        Cluster(nats_server.url, "dcx") as cluster,
        attacked(nats_server.url, attack) as (broker, bridge),
    ):
        await until(lambda: broker.ended >= 1 and broker.connections >= 2, "the end", TIMEOUT_S)
        await bridge.connected(2)
        assert broker.writer is not None
        broker.writer.write(publish(b"kp1/app_v1/dcx/good/json", b"good", qos=1, packet_id=1))
        await until(
            lambda: any(each.fields["payload"] == b"good" for each in cluster.requests), "the message"
        )
        assert "Traceback" not in bridge.log
