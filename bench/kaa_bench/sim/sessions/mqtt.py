"""A device of MQTT 3.1.1 or 5 on the gateway's codec: QoS 0, 1 or 2, with or without answers.

Source: MQTT 3.1.1; MQTT 5.0; 1/KP for request IDs, `/status` and `/error`. With MQTT 5 a device uses topic aliases as
far as the gateway allows them, and is answered on its Response Topic.
"""

import asyncio
import contextlib
import json
import ssl
from typing import cast

from kaa_gateway.errors import ProtocolError

from kaa_bench import mqtt_packets as mqtt
from kaa_bench.packets import MqttVersion, connack
from kaa_bench.sim.sessions import Pushed, SessionError
from kaa_bench.sim.sessions.websocket import WebSocketPipe

PACKET_IDS = 65_535
REQUEST_IDS = 2**31 - 1
STATUS, ERROR = "/status", "/error"
RESPONSE_TOPIC = "response"
REFUSED = 0x80
"""The first reason code of MQTT 5 that refuses."""


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
        user: str | None = None,
        password: str | None = None,
        source: tuple[str, int] | None = None,
        tls: ssl.SSLContext | None = None,
        websocket: bool = False,
        version: MqttVersion = "3.1.1",
    ) -> None:
        self._address = host, port
        self._client_id = client_id
        self._qos, self._answers, self._timeout = qos, answers, timeout
        self._pushed = pushed
        self._user = user
        self._password = None if password is None else password.encode()
        self._source = source
        self._tls, self._websocket = tls, websocket
        self._level = mqtt.LEVEL_5 if version == "5" else mqtt.LEVEL_3_1_1
        self._aliases: dict[str, int] = {}
        self._alias_maximum = 0
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._packet_id = 0
        self._request_id = 0
        self._acknowledged: dict[int, asyncio.Future[None]] = {}
        self._answered: dict[str, asyncio.Future[None]] = {}
        self._connack: asyncio.Future[None] | None = None
        self.last_error: str | None = None
        """The last error of an extension or the gateway, also of a message that nobody waits for."""

    async def connect(self) -> None:
        """See `Session.connect`."""
        loop = asyncio.get_running_loop()
        self._rest = b""
        self._aliases = {}
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
                    local_addr=self._source,
                )
                if pipe is not None:
                    await pipe.opened
                self._write(
                    mqtt.Connect(
                        self._client_id,
                        keep_alive=0,
                        level=self._level,
                        user_name=self._user,
                        password=self._password,
                    )
                )
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
        request_id = ""
        if self._qos:
            packet_id = self._packet_id = self._packet_id % PACKET_IDS + 1
            waiting.append(loop.create_future())
            self._acknowledged[packet_id] = waiting[-1]
        if self._answers:
            self._request_id = self._request_id % REQUEST_IDS + 1
            request_id = str(self._request_id)
            waiting.append(loop.create_future())
            self._answered[request_id] = waiting[-1]
        try:
            self._write(self._publish(path, payload, packet_id, request_id))
            async with asyncio.timeout(self._timeout):
                for future in waiting:
                    await future
        except TimeoutError:
            raise SessionError(
                "not answered in time" if self._answers else "not acknowledged in time"
            ) from None
        finally:
            self._acknowledged.pop(packet_id, None)
            self._answered.pop(request_id, None)

    def _publish(self, path: str, payload: bytes, packet_id: int, request_id: str) -> mqtt.Publish:
        """Return a PUBLISH, with a request ID if it is not empty."""
        if self._level < mqtt.LEVEL_5:
            topic = f"{path}/{request_id}" if request_id else path
            return mqtt.Publish(topic, payload, self._qos, packet_id)
        alias = self._aliases.get(path, 0)
        topic = "" if alias else path
        if not alias and len(self._aliases) < self._alias_maximum:
            alias = self._aliases[path] = len(self._aliases) + 1
        return mqtt.Publish(
            topic,
            payload,
            self._qos,
            packet_id,
            topic_alias=alias,
            response_topic=RESPONSE_TOPIC if request_id else None,
            correlation_data=request_id.encode() if request_id else None,
        )

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
                transport.write(mqtt.encode(mqtt.Disconnect(), self._level))
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
                packet, used = mqtt.decode(memoryview(data)[at:], self._level)
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
            self._transport.write(mqtt.encode(packet, self._level))
        except RuntimeError:
            raise SessionError("connection lost") from None

    def _take(self, packet: "mqtt.Packet") -> None:
        match packet:
            case mqtt.Connack(return_code=0):
                self._alias_maximum = packet.topic_alias_maximum
                _succeed(self._connack)
            case mqtt.Connack(return_code=code):
                _fail(self._connack, connack(code, "3.1.1" if self._level < mqtt.LEVEL_5 else "5"))
            case mqtt.Puback(packet_id=packet_id, reason_code=code) if code >= REFUSED:
                _fail(self._acknowledged.get(packet_id), f"PUBACK {code:#04x}")
            case mqtt.Pubrec(packet_id=packet_id):
                # QoS 2: the message is done with PUBCOMP.
                with contextlib.suppress(SessionError):
                    self._write(mqtt.Pubrel(packet_id))
            case mqtt.Pubcomp(packet_id=packet_id):
                _succeed(self._acknowledged.get(packet_id))
            case mqtt.Puback(packet_id=packet_id):
                _succeed(self._acknowledged.get(packet_id))
            case mqtt.Suback(packet_id=packet_id, return_codes=codes):
                if any(code >= REFUSED for code in codes):
                    _fail(self._acknowledged.get(packet_id), "subscription refused")
                else:
                    _succeed(self._acknowledged.get(packet_id))
            case mqtt.Publish():
                self._take_publish(packet)
            case mqtt.Disconnect(reason_code=code):
                self._end(f"DISCONNECT {code:#04x}")

    def _take_publish(self, packet: mqtt.Publish) -> None:
        if packet.qos:
            with contextlib.suppress(SessionError):
                self._write(mqtt.Puback(packet.packet_id))
        if packet.correlation_data is not None:
            waiting = self._answered.get(packet.correlation_data.decode(errors="replace"))
            if 200 <= packet.status_code < 300:
                _succeed(waiting)
            else:
                _fail(waiting, f"error {packet.status_code}")
            return
        if packet.topic.endswith(ERROR):
            waiting = self._answered.get(packet.topic.removesuffix(ERROR).rpartition("/")[2])
            kind = self.last_error = f"error {_status_of(packet.payload)}"
            if waiting is not None:
                _fail(waiting, kind)
            else:
                # Without a request ID an error names no message; it is that of the oldest.
                _fail(next(iter(self._acknowledged.values()), None), kind)
            return
        topic = packet.topic.removesuffix(STATUS)
        request_id = topic.rpartition("/")[2]
        if request_id in self._answered:
            _succeed(self._answered[request_id])
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
