"""A load of bare NATS requests. See nats_request_load.pyx."""

from collections.abc import Sequence
from socket import socket

from kaa_bench.load.loop import Load

class NatsRequestLoad(Load):
    def __init__(self, sockets: Sequence[socket], messages: Sequence[bytes], window: int) -> None: ...
