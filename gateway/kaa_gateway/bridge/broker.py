"""The connection to the broker: MQTT 5, with acknowledgements that are sent when the bridge says so.

aiomqtt makes the client; paho, on which it stands, acknowledges by hand in its manual mode. aiomqtt does not pass that
mode on, so it is set on the client inside.

paho checks little of what a broker sends, and aiomqtt leaves a connection open whose input it could not read. So the
client inside reads packets through `_read_packet`, which ends the connection of a broker that violates MQTT.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiomqtt
import structlog
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

log = structlog.get_logger()

UNSENT_CALLS_MAX = 1_000_000
"""aiomqtt warns of more unacknowledged publications than this; the bridge bounds them itself."""
QOS_0_MAX = 1000
"""Messages of QoS 0 that wait to be forwarded."""
QOS_0_BYTES_MAX = 16 << 20
"""Bytes of their payloads."""
RECEIVE_FACTOR = 4
"""Unacknowledged messages end the connection at so many times Receive Maximum, which Mosquitto exceeds at times."""
PUBLISH_QOS_2, TYPE_AND_QOS = 0x34, 0xF6
"""The first byte of such a PUBLISH, and its bits that say so."""


class Inbox(asyncio.Queue["aiomqtt.Message"]):
    """The messages that wait to be forwarded. Receive Maximum bounds those of QoS 1, and this those of QoS 0."""

    dropped: Callable[[], None]
    qos_0_bytes = 0

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Add a message; drop one of QoS 0 if too many wait."""
        size = _size(item)
        if size and (self.qsize() >= QOS_0_MAX or self.qos_0_bytes + size > QOS_0_BYTES_MAX):
            self.dropped()
            return
        self.qos_0_bytes += size
        super().put_nowait(item)

    def get_nowait(self) -> aiomqtt.Message:
        """Take the oldest message."""
        item = super().get_nowait()
        self.qos_0_bytes -= _size(item)
        return item


def _size(message: aiomqtt.Message) -> int:
    """Return the bytes that a message of QoS 0 counts for; 0 for another one."""
    return 0 if message.qos else 1 + (len(message.payload) if isinstance(message.payload, bytes) else 0)


class BrokerClient(aiomqtt.Client):
    """One connection to the broker."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        identifier: str,
        username: str | None,
        password: str | None,
        tls: ssl.SSLContext | None,
        keep_alive: int,
        receive_maximum: int,
        packet_size_max: int,
        session_expiry: int,
        dropped: Callable[[], None],
        violated: Callable[[], None],
    ) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = receive_maximum
        properties.MaximumPacketSize = packet_size_max
        properties.SessionExpiryInterval = session_expiry
        inbox: Any = type("Inbox", (Inbox,), {"dropped": staticmethod(dropped)})
        super().__init__(
            host,
            port,
            identifier=identifier,
            username=username,
            password=password,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            keepalive=keep_alive,
            properties=properties,
            tls_context=tls,
            queue_type=inbox,
        )
        self.pending_calls_threshold = UNSENT_CALLS_MAX
        self._client.manual_ack_set(True)
        self._receive_maximum = receive_maximum
        self._packet_size_max = packet_size_max
        self._violated = violated
        self._unacknowledged_count = 0
        inner: Any = self._client
        self._packet_read, self._sock_recv = inner._packet_read, inner._sock_recv
        inner._packet_read, inner._sock_recv = self._read_packet, self._receive

    def acknowledge(self, packet_id: int) -> None:
        """Send the PUBACK of a message."""
        self._unacknowledged_count -= 1
        self._client.ack(packet_id, 1)

    def _read_packet(self) -> MQTTErrorCode:
        """Read a packet, in place of paho. Let paho close the connection if it violates MQTT."""
        try:
            return MQTTErrorCode(self._packet_read())
        except Exception as error:  # noqa: BLE001 - paho and aiomqtt raise many kinds, and all mean this
            self._violated()
            log.warning("the broker violates MQTT", error=str(error))
            return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def _receive(self, size: int) -> bytes:
        """Receive a byte of a packet's header, or the rest of the packet, unless this may not come."""
        packet = self._client._in_packet
        if size > self._packet_size_max:
            raise ValueError("a packet is larger than max-packet-size")
        if packet["command"] & TYPE_AND_QOS == PUBLISH_QOS_2:
            raise ValueError("a message has QoS 2, and the subscriptions QoS 1")
        return bytes(self._sock_recv(size))

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        """Take a message. Raise ValueError if its topic is not valid, or if far too many wait for PUBACK."""
        if message.qos:
            self._unacknowledged_count += 1
            if self._unacknowledged_count > RECEIVE_FACTOR * self._receive_maximum:
                raise ValueError(
                    f"more than {RECEIVE_FACTOR} times receive-maximum messages are not acknowledged"
                )
        super()._on_message(client, userdata, message)
