"""The connection to the broker: MQTT 5, with acknowledgements that are sent when the bridge says so.

aiomqtt makes the client; paho, on which it stands, acknowledges by hand in its manual mode. aiomqtt does not pass that
mode on, so it is set on the client inside.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

UNSENT_CALLS_MAX = 1_000_000
"""aiomqtt warns of more unacknowledged publications than this; the bridge bounds them itself."""
QOS_0_MAX = 1000
"""Messages of QoS 0 that wait to be forwarded."""
QOS_0_BYTES_MAX = 16 << 20
"""Bytes of their payloads."""


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

    def acknowledge(self, packet_id: int) -> None:
        """Send the PUBACK of a message."""
        self._client.ack(packet_id, 1)
