"""A stand-in for the gateway: `lossy_gateway.py NATS_URL MQTT HTTP MANAGEMENT COAP KPUDP KEEP`, five ports.

It acknowledges each message, forwards the first KEEP of each connection and drops the others, so that a bench
which counts right reports a loss. It knows no more of the protocols than the load generator sends.
"""

import asyncio
import sys
from collections import Counter

import nats
from kaa_bench import packets
from kaa_gateway.bus import subjects
from kaa_gateway.wire import coap, esp, kpudp
from nats.aio.client import Client

SUBJECT = subjects.service(packets.EXTENSION, "esp", subjects.CLIENT_DATA)
CLIENT_DATA = esp.encode_client_data(
    "id", 0, 0, packets.APP_VERSION, packets.BENCH.token(0), "/json", None, b"{}"
)
KPUDP_FIRST = b"\xb1"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Datagrams(asyncio.DatagramProtocol):
    """A UDP server: the first `keep` messages of a source go to NATS."""

    def __init__(self, client: Client, keep: int) -> None:
        self.client = client
        self.keep = keep
        self.forwarded: Counter[tuple[str, int]] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.create_task(self.take(data, addr))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def take(self, data: bytes, source: tuple[str, int]) -> None:
        answer = self.answer(data)
        if len(answer) > 4 or answer[:1] == KPUDP_FIRST:
            self.forwarded[source] += 1
            if self.forwarded[source] <= self.keep:
                await self.client.publish(SUBJECT, CLIENT_DATA)
        self.transport.sendto(answer, source)

    def answer(self, data: bytes) -> bytes:
        if data[:1] == KPUDP_FIRST:
            epoch, (message,) = kpudp.decode(data)
            return kpudp.encode(epoch, [kpudp.Message(kpudp.Type.ACK, message.message_id)])
        request = coap.decode(data)
        if request.code == 0:
            return packets.coap_empty(packets.COAP_RST, request.message_id)
        return coap.encode(coap.Message(2, 0x44, request.message_id, request.token))


async def main(
    nats_url: str,
    mqtt_port: int,
    http_port: int,
    management_port: int,
    coap_port: int,
    kpudp_port: int,
    keep: int,
) -> None:
    client = await nats.connect(nats_url)
    loop = asyncio.get_running_loop()
    for port in (coap_port, kpudp_port):
        await loop.create_datagram_endpoint(lambda: Datagrams(client, keep), ("127.0.0.1", port))

    async def mqtt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        forwarded = 0
        while head := await reader.read(1):
            if head == packets.PINGREQ[:1]:
                await reader.readexactly(1)
                writer.write(b"\xd0\x00")
                continue
            length = shift = 0
            while True:
                byte = (await reader.readexactly(1))[0]
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            body = await reader.readexactly(length)
            if head == b"\x10":
                writer.write(packets.CONNACK_ACCEPTED)
                continue
            if forwarded < keep:
                forwarded += 1
                await client.publish(SUBJECT, CLIENT_DATA)
            if head == b"\x32":
                topic_size = int.from_bytes(body[:2], "big")
                writer.write(b"\x40\x02" + body[2 + topic_size : 4 + topic_size])
        writer.close()

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        forwarded = 0
        while await reader.read(65536):
            if forwarded < keep:
                forwarded += 1
                await client.request(SUBJECT, CLIENT_DATA, timeout=20)
            writer.write(OK)
        writer.close()

    servers = [
        await asyncio.start_server(serve, "127.0.0.1", port)
        for serve, port in ((mqtt, mqtt_port), (http, http_port), (http, management_port))
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def run() -> None:
    nats_url, *numbers = sys.argv[1:]
    asyncio.run(main(nats_url, *map(int, numbers)))


if __name__ == "__main__":
    run()
