"""A device of MQTT 3.1.1 on the gateway's codec: QoS 0 or 1, with or without request IDs.

Source: MQTT 3.1.1; 1/KP for request IDs, `/status` and `/error`.
"""

import asyncio
import contextlib
import json
import ssl
from typing import cast

from kaa_gateway.errors import ProtocolError

from kaa_bench import mqtt_packets as mqtt
from kaa_bench.sim.sessions import Pushed, SessionError
from kaa_bench.sim.sessions.websocket import WebSocketPipe

PACKET_IDS = 65_535
REQUEST_IDS = 2**31 - 1
STATUS, ERROR = "/status", "/error"


class MqttSession(asyncio.Protocol):
    """See `Session`. There is no keep-alive, so a fleet may have any interval."""

    def __init__(
        self,
        host: str,
        port: int,
        client_id: str,
        *,
        qos: int,
        answers: bool,
        timeout: float,
        pushed: Pushed,
        tls: ssl.SSLContext | None = None,
        websocket: bool = False,
    ) -> None:
        self._address = host, port
        self._client_id = client_id
        self._qos, self._answers, self._timeout = qos, answers, timeout
        self._pushed = pushed
        self._tls, self._websocket = tls, websocket
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._packet_id = 0
        self._request_id = 0
        self._acknowledged: dict[int, asyncio.Future[None]] = {}
        self._answered: dict[str, asyncio.Future[None]] = {}
        self._connack: asyncio.Future[None] | None = None

    async def connect(self) -> None:
        """See `Session.connect`."""
        loop = asyncio.get_running_loop()
        self._rest = b""
        self._connack = loop.create_future()
        try:
            async with asyncio.timeout(self._timeout):
                host, port = self._address
                pipe = WebSocketPipe(self, host, port) if self._websocket else None
                await loop.create_connection(
                    lambda: pipe or self,
                    host,
                    port,
                    ssl=self._tls,
                    server_hostname=host if self._tls else None,
                )
                if pipe is not None:
                    await pipe.opened
                self._write(mqtt.Connect(self._client_id, keep_alive=0))
                await self._connack
        except TimeoutError:
            raise SessionError("connect timed out") from None
        except OSError as error:
            raise SessionError(f"connect: {type(error).__name__}") from None

    async def send(self, path: str, payload: bytes) -> None:
        """See `Session.send`. A message of QoS 0 without request ID is done when it is written."""
        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[None]] = []
        packet_id = 0
        topic = path
        if self._qos:
            packet_id = self._packet_id = self._packet_id % PACKET_IDS + 1
            waiting.append(loop.create_future())
            self._acknowledged[packet_id] = waiting[-1]
        if self._answers:
            self._request_id = self._request_id % REQUEST_IDS + 1
            topic = f"{path}/{self._request_id}"
            waiting.append(loop.create_future())
            self._answered[topic] = waiting[-1]
        try:
            self._write(mqtt.Publish(topic, payload, self._qos, packet_id))
            async with asyncio.timeout(self._timeout):
                for future in waiting:
                    await future
        except TimeoutError:
            raise SessionError(
                "not answered in time" if self._answers else "not acknowledged in time"
            ) from None
        finally:
            self._acknowledged.pop(packet_id, None)
            self._answered.pop(topic, None)

    async def listen(self, path: str) -> None:
        """See `Session.listen`: subscribe to the messages of the extension."""
        packet_id = self._packet_id = self._packet_id % PACKET_IDS + 1
        granted = self._acknowledged[packet_id] = asyncio.get_running_loop().create_future()
        try:
            self._write(mqtt.Subscribe(packet_id, ((f"{path}{STATUS}", 1),)))
            async with asyncio.timeout(self._timeout):
                await granted
        except TimeoutError:
            raise SessionError("no SUBACK in time") from None
        finally:
            self._acknowledged.pop(packet_id, None)

    async def close(self) -> None:
        """See `Session.close`."""
        transport, self._transport = self._transport, None
        if transport is not None:
            # uvloop raises it for a transport that has ended, before connection_lost.
            with contextlib.suppress(RuntimeError):
                transport.write(mqtt.encode(mqtt.Disconnect()))
            transport.close()

    # ---------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        data = self._rest + data
        at = 0
        try:
            while at < len(data):
                packet, used = mqtt.decode(memoryview(data)[at:])
                if packet is None:
                    break
                at += used
                self._take(packet)
        except ProtocolError:
            self._end("malformed packet")
        self._rest = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._end("connection lost")

    # ----------------------------------------------------------------

    def _write(self, packet: "mqtt.Packet") -> None:
        if self._transport is None or self._transport.is_closing():
            raise SessionError("connection lost")
        try:
            self._transport.write(mqtt.encode(packet))
        except RuntimeError:
            raise SessionError("connection lost") from None

    def _take(self, packet: "mqtt.Packet") -> None:
        match packet:
            case mqtt.Connack(return_code=0):
                _succeed(self._connack)
            case mqtt.Connack(return_code=code):
                _fail(self._connack, f"CONNACK {code}")
            case mqtt.Puback(packet_id=packet_id):
                _succeed(self._acknowledged.get(packet_id))
            case mqtt.Suback(packet_id=packet_id, return_codes=codes):
                if 0x80 in codes:
                    _fail(self._acknowledged.get(packet_id), "subscription refused")
                else:
                    _succeed(self._acknowledged.get(packet_id))
            case mqtt.Publish():
                self._take_publish(packet)

    def _take_publish(self, packet: mqtt.Publish) -> None:
        if packet.qos:
            with contextlib.suppress(SessionError):
                self._write(mqtt.Puback(packet.packet_id))
        if packet.topic.endswith(ERROR):
            waiting = self._answered.get(packet.topic.removesuffix(ERROR))
            kind = f"error {_status_of(packet.payload)}"
            if waiting is not None:
                _fail(waiting, kind)
            else:
                # Without a request ID an error names no message; it is that of the oldest.
                _fail(next(iter(self._acknowledged.values()), None), kind)
            return
        topic = packet.topic.removesuffix(STATUS)
        if topic in self._answered:
            _succeed(self._answered[topic])
        else:
            self._pushed(topic, packet.payload)

    def _end(self, kind: str) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        for future in (self._connack, *self._acknowledged.values(), *self._answered.values()):
            _fail(future, kind)


def _status_of(payload: bytes) -> str:
    """Return the status in the JSON payload of an error (1/KP)."""
    try:
        return str(int(json.loads(payload)["statusCode"]))
    except (ValueError, KeyError, TypeError):
        return "without status"


def _succeed(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None] | None, kind: str) -> None:
    if future is not None and not future.done():
        future.set_exception(SessionError(kind))
        future.exception()  # nobody may be waiting for it any more
