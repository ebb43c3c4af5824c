"""A server that answers and discards messages. See discard.pyx."""

from socket import socket

class DiscardServer:
    messages: int

    def __init__(self, socket: socket, protocol: str) -> None: ...
    def serve(self, control: int) -> None: ...
