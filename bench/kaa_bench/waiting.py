"""Measures what devices that wait for a push cost the gateway: `python -m kaa_bench.waiting`.

Each device waits once, and a push answers it. The memory is the gateway's while all devices wait. The devices of CoAP
send from an address and port each, as real ones do. Those of MQTT are what the others are compared with: each has
subscribed to its path and sent one message, and then keeps its connection.
"""

import argparse
import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

from kaa_gateway.bus import subjects
from kaa_gateway.wire import coap, esp
from nats.aio.client import Client
from nats.aio.msg import Msg

from kaa_bench.connecting import raise_file_limit
from kaa_bench.packets import APP_VERSION, EXTENSION, connect, packet, string
from kaa_bench.processes import INSTANCE, Gateway, NatsServer

PROTOCOLS = ("mqtt", "http", "coap")
WAIT_S = 200
FIRST_SHARE = 4
"""One in this many devices waits before the first reading, because a server allocates some memory once."""
TIMEOUT_S = 60.0
AT_ONCE = 500
"""Devices that begin to wait at once."""
URI_PATH, URI_QUERY = 11, 15
CON, ACK, POST = 0, 2, 2


class Waiters:
    """The devices, and the extension that they ask."""

    def __init__(self, gateway: Gateway, protocol: str) -> None:
        self._gateway = gateway
        self._protocol = protocol
        self._sockets: list[socket.socket] = []
        self._nats = Client()
        self._asked = 0

    async def start(self, url: str) -> None:
        """Serve the extension."""
        await self._nats.connect(url)
        subject = subjects.service(EXTENSION, "esp", subjects.CLIENT_DATA)
        await self._nats.subscribe(subject, cb=self._take)
        await self._nats.flush()

    async def _take(self, message: Msg) -> None:
        self._asked += 1

    async def wait(self, count: int) -> None:
        """Let `count` more devices wait. Return when the extension has been asked by all."""
        raise_file_limit(len(self._sockets) + count)
        wanted = len(self._sockets) + count
        while len(self._sockets) < wanted:
            for _ in range(min(AT_ONCE, wanted - len(self._sockets))):
                self._sockets.append(self._begin(len(self._sockets)))
            async with asyncio.timeout(TIMEOUT_S):
                while self._asked < len(self._sockets):
                    await asyncio.sleep(0.01)

    def _begin(self, device: int) -> socket.socket:
        address = self._gateway.address_of(self._protocol)
        if self._protocol == "http":
            made = socket.create_connection(address)
            made.sendall(
                f"POST /kp1/{APP_VERSION}/{EXTENSION}/device-{device}/command?wait={WAIT_S} HTTP/1.1\r\n"
                "Host: gateway\r\nContent-Length: 0\r\n\r\n".encode()
            )
            return made
        if self._protocol == "mqtt":
            made = socket.create_connection(address)
            topic = string(f"kp1/{APP_VERSION}/{EXTENSION}/device-{device}/command")
            subscribe = packet(0x82, b"\0\1" + topic + b"\0")
            made.sendall(connect(device) + subscribe + packet(0x30, topic))
            return made
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((f"127.0.{device >> 8 & 0xFF}.{(device & 0xFF) or 1}", 0))
        made.connect(address)
        path = ("kp1", APP_VERSION, EXTENSION, f"device-{device}", "command")
        options = [*((URI_PATH, level.encode()) for level in path), (URI_QUERY, f"wait={WAIT_S}".encode())]
        made.send(coap.encode(coap.Message(CON, POST, 1, b"\1\2", tuple(options), b"")))
        made.settimeout(TIMEOUT_S)
        return made

    async def push(self) -> None:
        """Push to each device. Return when all have their response."""
        subject = subjects.service(INSTANCE, "esp", subjects.EXTENSION_DATA)
        for device in range(len(self._sockets)):
            await self._nats.publish(
                subject,
                esp.encode_extension_data(
                    f"push-{device}",
                    0,
                    0,
                    None,
                    EXTENSION,
                    f"device-{device}",
                    "/command",
                    None,
                    b"[1]",
                    200,
                    None,
                ),
            )
        await self._nats.flush()
        for each in self._sockets:
            await asyncio.to_thread(self._read_response, each)

    def _read_response(self, device: socket.socket) -> None:
        device.settimeout(TIMEOUT_S)
        if self._protocol == "mqtt":
            received = b""
            while b"[1]" not in received:
                received += device.recv(4096)
            return
        while (answer := device.recv(4096))[:1] and self._protocol == "coap":
            message = coap.decode(answer)
            if message.code:
                device.send(coap.encode(coap.Message(ACK, 0, message.message_id)))
                return
        assert self._protocol == "coap" or answer.startswith(b"HTTP/1.1 200"), answer

    async def stop(self) -> None:
        """Let all devices go."""
        for each in self._sockets:
            each.close()
        await self._nats.close()


@contextlib.contextmanager
def running(protocol: str) -> Iterator[tuple[Gateway, str]]:
    """Run a gateway and its NATS server; yield the gateway and the URL of the server."""
    with NatsServer() as nats, Gateway(nats) as gateway:
        assert protocol in gateway.addresses
        yield gateway, f"nats://127.0.0.1:{nats.ports[0]}"


async def measure(protocol: str, devices: int) -> None:
    """Print the figures of a protocol."""
    with running(protocol) as (gateway, url):
        waiters = Waiters(gateway, protocol)
        await waiters.start(url)
        await waiters.wait(max(1, devices // FIRST_SHARE))
        before, cpu_before = gateway.memory(), gateway.cpu_seconds()
        await waiters.wait(devices)
        await asyncio.sleep(2)  # output and acknowledgements leave, buffers are given back
        memory, cpu_waiting = gateway.memory(), gateway.cpu_seconds()
        began = time.monotonic()
        await waiters.push()
        cpu = gateway.cpu_seconds()
        pushed = devices + max(1, devices // FIRST_SHARE)
        print(
            f"{protocol}: {(memory - before) / devices:,.0f} bytes a waiting device; CPU "
            f"{(cpu_waiting - cpu_before) / devices * 1e6:.0f} us to connect and begin to wait, "
            f"{(cpu - cpu_waiting) / pushed * 1e6:.0f} us to be answered by a push "
            f"({devices:,} devices, {time.monotonic() - began:.0f} s)"
        )
        await waiters.stop()


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(prog="python -m kaa_bench.waiting", description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", choices=PROTOCOLS, action="append", help="default: all")
    parser.add_argument("--devices", type=int, default=10_000, help="how many wait (default: %(default)s)")
    arguments = parser.parse_args()
    for protocol in arguments.protocol or PROTOCOLS:
        asyncio.run(measure(protocol, arguments.devices))


if __name__ == "__main__":
    main()
