"""The settings of the MQTT-SN server. See settings.pyx."""

from collections.abc import Mapping

class MqttSnSettings:
    gateway_id: int
    peers: int
    def __init__(
        self,
        *,
        gateway_id: int,
        retry_timeout: float,
        retries: int,
        connect_timeout: float,
        peers: int,
        topics: int,
        buffered_messages: int,
        buffered_bytes: int,
        message_size: int,
        predefined: Mapping[int, str],
    ) -> None: ...
    def set(
        self,
        *,
        gateway_id: int,
        retry_timeout: float,
        retries: int,
        connect_timeout: float,
        peers: int,
        topics: int,
        buffered_messages: int,
        buffered_bytes: int,
        message_size: int,
        predefined: Mapping[int, str],
    ) -> None: ...
