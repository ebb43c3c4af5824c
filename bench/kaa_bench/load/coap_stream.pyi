"""A load of CoAP requests over TCP. See coap_stream.pyx."""

from collections.abc import Sequence
from socket import socket

from kaa_bench.load.loop import Load

class CoapStreamLoad(Load):
    def __init__(self, sockets: Sequence[socket], messages: Sequence[bytes], window: int = 1) -> None: ...
