"""A load of MQTT PUBLISH packets. See mqtt_load.pyx."""

from collections.abc import Sequence
from socket import socket

from kaa_bench.load.loop import Load

class MqttLoad(Load):
    def __init__(
        self,
        sockets: Sequence[socket],
        messages: Sequence[bytes],
        window: int,
        *,
        fence: bytes = b"",
        identifier_offset: int | None = None,
    ) -> None: ...
