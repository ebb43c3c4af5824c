"""Loads of MQTT PUBLISH packets and of MQTT requests. See mqtt.pyx."""

from collections.abc import Sequence
from socket import socket

from kaa_bench.load.loop import Load

REQUEST_ID_DIGITS: int

class MqttLoad(Load):
    def __init__(
        self,
        sockets: Sequence[socket],
        messages: Sequence[bytes],
        window: int,
        *,
        fence: bytes = b"",
        identifier_offset: int | None = None,
        reason_codes: bool = False,
    ) -> None: ...

class MqttRequestLoad(Load):
    def __init__(
        self,
        sockets: Sequence[socket],
        messages: Sequence[bytes],
        window: int,
        *,
        request_id_offset: int,
        counter_offset: int | None = None,
    ) -> None: ...
