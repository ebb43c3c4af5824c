"""Loads of CoAP requests, and of messages of MQTT-SN and KP/UDP. See datagram.pyx."""

from collections.abc import Sequence
from socket import socket

from kaa_bench.load.loop import Load

class CoapLoad(Load):
    def __init__(
        self, sockets: Sequence[socket], messages: Sequence[bytes], window: int = 1, *, silence: float = 1.0
    ) -> None: ...

class MqttSnLoad(Load):
    def __init__(
        self, sockets: Sequence[socket], messages: Sequence[bytes], window: int, *, silence: float = 1.0
    ) -> None: ...

class KpUdpLoad(Load):
    def __init__(
        self, sockets: Sequence[socket], messages: Sequence[bytes], window: int, *, silence: float = 1.0
    ) -> None: ...

class SealedKpUdpLoad(KpUdpLoad):
    def __init__(
        self,
        sockets: Sequence[socket],
        messages: Sequence[bytes],
        window: int,
        *,
        sessions: Sequence[tuple[bytes, int, bytes]],
        silence: float = 1.0,
    ) -> None: ...
