"""The client's side of a WebSocket connection, as loads need it: the upgrade, and frames.

The mask of our frames is 0, so that a message can be changed in place. A server unmasks it all the same.

Source: RFC 6455, sections 4.1 and 5.2.
"""

import socket

from kaa_bench.errors import BenchError

PATH = "/ws"
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
BINARY = 0x82
"""The first byte of a whole binary message."""
MASKED = 0x80
MASK = bytes(4)
SHORT_MAX = 125
"""The longest payload whose length is in the second byte."""
LONG = 126
"""What stands there if the length follows in two bytes."""
RESPONSE_MAX = 8192


def frame(payload: bytes) -> bytes:
    """Return a binary message of a client."""
    size = len(payload)
    length = (
        bytes((MASKED | size,)) if size <= SHORT_MAX else bytes((MASKED | LONG,)) + size.to_bytes(2, "big")
    )
    return bytes((BINARY,)) + length + MASK + payload


def upgrade(connected: socket.socket) -> None:
    """Make a WebSocket connection for MQTT out of a TCP connection."""
    host, port = connected.getpeername()[:2]
    connected.sendall(
        f"GET {PATH} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n".encode()
    )
    response = b""
    while not response.endswith(b"\r\n\r\n"):
        part = connected.recv(1)
        if not part or len(response) > RESPONSE_MAX:
            raise BenchError(f"the upgrade to WebSocket was answered with {response[:100]!r}")
        response += part
    if not response.startswith(b"HTTP/1.1 101 "):
        raise BenchError(f"the upgrade to WebSocket was answered with {response[:100]!r}")
