"""The extension service of the bench. See nats_sink.pyx."""

from socket import socket

class NatsSink:
    received: int

    def __init__(self, socket: socket, extension: bytes | None = None) -> None: ...
    def drain(self, control: int) -> None: ...
