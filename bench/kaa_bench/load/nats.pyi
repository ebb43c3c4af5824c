"""A load of bare NATS requests, and the extension service of the bench. See nats.pyx."""

from collections.abc import Sequence
from socket import socket

from kaa_bench.load.loop import Load

class NatsRequestLoad(Load):
    def __init__(self, sockets: Sequence[socket], messages: Sequence[bytes], window: int) -> None: ...

class NatsSink:
    received: int

    def __init__(self, socket: socket, extension: bytes | None = None) -> None: ...
    def drain(self, control: int) -> None: ...
