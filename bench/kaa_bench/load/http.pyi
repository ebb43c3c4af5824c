"""A load of HTTP/1.1 requests. See http.pyx."""

from collections.abc import Sequence
from socket import socket

from kaa_bench.load.loop import Load

class HttpLoad(Load):
    def __init__(self, sockets: Sequence[socket], messages: Sequence[bytes], window: int = 1) -> None: ...
