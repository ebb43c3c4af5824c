"""A load of KP/UDP messages. See kpudp_load.pyx."""

from collections.abc import Sequence
from socket import socket

from kaa_bench.load.loop import Load

class KpUdpLoad(Load):
    def __init__(
        self, sockets: Sequence[socket], messages: Sequence[bytes], window: int, *, silence: float = 1.0
    ) -> None: ...
