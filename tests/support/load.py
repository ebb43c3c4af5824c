"""Devices that publish numbered messages at QoS 1, and extensions that count them.

For tests that break something in between. Request IDs are the numbers, so that an error that a device is told names
its message.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from kaa_bench.mqtt_packets import Pingreq, Pingresp, Puback, Publish
from kaa_ext import Extension, Request
from kaa_gateway.bus import subjects
from kaa_gateway.bus.flushing import flush
from kaa_gateway.wire.esp import decode_client_data
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.esp import until
from tests.support.mqtt import MqttPeer, mqtt_client

PACKET_IDS = 65_535
END_TIMEOUT_S = 90.0
"""However long NATS takes to recover: servers of a cluster hold elections, of several seconds each."""


class Device:
    """Keeps `window` messages unacknowledged until it is told to stop, or the gateway ends its connection."""

    def __init__(self, port: int, token: str, *, window: int = 64, size: int = 0) -> None:
        self.token = token
        self.published = 0
        self.acknowledged: set[int] = set()
        self.told: set[int] = set()
        """Acknowledged, and answered with an error: the device knows that they went nowhere."""
        self._port = port
        self._window = window
        self._padding = bytes(size)
        self._stopping = False
        self._peer: MqttPeer | None = None
        self._pingresp = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect and publish."""
        self._task = asyncio.create_task(self._run())

    async def finish(self) -> None:
        """Publish no more, and return when all is acknowledged."""
        self._stopping = True
        await self.ended()

    async def ended(self) -> None:
        """Return when it has finished, or the gateway has ended its connection."""
        assert self._task is not None
        await asyncio.wait_for(self._task, END_TIMEOUT_S)

    async def caught_up(self) -> None:
        """Return when it has taken all that the gateway has sent so far."""
        assert self._peer is not None
        self._pingresp.clear()
        await self._peer.send(Pingreq())
        await asyncio.wait_for(self._pingresp.wait(), END_TIMEOUT_S)

    async def acknowledges(self, count: int) -> None:
        """Return when `count` more messages are acknowledged than now."""
        target = len(self.acknowledged) + count
        await until(
            lambda: len(self.acknowledged) >= target,
            f"{target} acknowledgements of {self.token}, got {len(self.acknowledged)}",
            END_TIMEOUT_S,
        )

    async def _run(self) -> None:
        async with mqtt_client(self._port) as peer:
            self._peer = peer
            # An error of the connection is its end as well: what was not acknowledged then never is.
            with contextlib.suppress(ConnectionError):
                await self._publish(peer)

    async def _publish(self, peer: MqttPeer) -> None:
        while True:
            if not self._stopping:
                await self._fill(peer)
            if len(self.acknowledged) == self.published:
                return
            packet = await peer.receive(END_TIMEOUT_S)
            if packet is None:
                return
            await self._take(peer, packet)

    async def _fill(self, peer: MqttPeer) -> None:
        while self.published - len(self.acknowledged) < self._window:
            self.published += 1
            number = self.published
            topic = f"kp1/app_v1/dcx/{self.token}/json/{number}"
            await peer.send(Publish(topic, b"%d " % number + self._padding, 1, number % PACKET_IDS + 1))

    async def _take(self, peer: MqttPeer, packet: object) -> None:
        if isinstance(packet, Puback):
            # Packet identifiers come round again after more messages than are ever unacknowledged.
            number = self.published - (self.published + 1 - packet.packet_id) % PACKET_IDS
            assert number not in self.acknowledged, f"{number} was acknowledged twice"
            self.acknowledged.add(number)
        elif isinstance(packet, Pingresp):
            self._pingresp.set()
        else:
            assert isinstance(packet, Publish), packet
            *_, number_level, last = packet.topic.split("/")
            assert last in ("status", "error"), packet
            if last == "error":
                self.told.add(int(number_level))
            if packet.qos:
                await peer.send(Puback(packet.packet_id))


class Counter:
    """The extension `dcx`, which answers nothing: `arrived` lists the numbers of each token, in their order.

    `replies` are the reply subjects of what came. It finds its way back to a server that was restarted.
    """

    def __init__(self, url: str) -> None:
        self.arrived: dict[str, list[int]] = {}
        self.replies: set[str] = set()
        self.nats = Client()
        self._url = url

    async def __aenter__(self) -> Self:
        await self.nats.connect(
            self._url,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.05,  # type: ignore[arg-type]
            error_cb=_ignore,
        )
        subject = subjects.service("dcx", "esp", subjects.CLIENT_DATA)
        await self.nats.subscribe(
            subject, cb=self._collect, pending_msgs_limit=10**9, pending_bytes_limit=10**9
        )
        await flush(self.nats)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.nats.close()

    @property
    def reconnected(self) -> bool:
        """Whether it has found its way back to a server."""
        return self.nats.is_connected and self.nats.stats["reconnects"] > 0

    async def settle(self) -> None:
        """Return when all that the server has sent so far is counted."""
        await asyncio.wait_for(flush(self.nats), END_TIMEOUT_S)
        await until(lambda: all(sub.pending_msgs == 0 for sub in self.nats._subs.values()), "the counter")

    def missing(self, device: Device) -> set[int]:
        """Return what was acknowledged to the device, and neither arrived nor was answered with an error."""
        return device.acknowledged - set(self.arrived.get(device.token, ())) - device.told

    def repeated(self, device: Device) -> int:
        """Return the messages of the device that arrived more than once, by how often."""
        arrived = self.arrived.get(device.token, [])
        return len(arrived) - len(set(arrived))

    def in_order(self, device: Device) -> bool:
        """Return whether the first arrivals are in the order of the publications."""
        first = list(dict.fromkeys(self.arrived.get(device.token, ())))
        return first == sorted(first)

    async def _collect(self, message: Msg) -> None:
        request = decode_client_data(message.data)
        assert request.endpoint_id is not None
        number = int(request.payload.split(b" ", 1)[0])
        self.replies.add(message.reply)
        self.arrived.setdefault(request.endpoint_id, []).append(number)


class Store:
    """The extension `dcx`, durable: `handled` lists the numbers of each token's messages, as often as they came."""

    def __init__(self, *urls: str) -> None:
        self.handled: dict[str, list[int]] = {}
        self.open = asyncio.Event()
        self.open.set()
        self.extension = Extension("dcx", nats_urls=urls, durable=True, ack_wait_s=2)
        self.extension.handler("*")(self._handle)

    async def _handle(self, request: Request) -> None:
        await self.open.wait()
        assert request.endpoint_id is not None
        self.handled.setdefault(request.endpoint_id, []).append(int(request.payload.split()[0]))

    def missing(self, device: Device) -> set[int]:
        """Return what the device had acknowledged and no handler has seen."""
        return device.acknowledged - device.told - set(self.handled.get(device.token, ()))

    async def has_all(self, device: Device) -> None:
        """Return when every acknowledged message was handled."""
        try:
            await until(lambda: not self.missing(device), "messages", END_TIMEOUT_S)
        except AssertionError as error:
            missing = sorted(self.missing(device))
            raise AssertionError(f"{len(missing)} messages are missing: {missing[:20]}") from error


async def _ignore(error: Exception) -> None:
    pass
