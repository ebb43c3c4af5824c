"""The sessions of devices with the gateway, by protocol: connect, send, and receive pushes."""

from collections.abc import Callable
from typing import Protocol

from kaa_bench.errors import BenchError

Pushed = Callable[[str, bytes], None]
"""A function that takes the resource path and the payload of a push."""


class SessionError(BenchError):
    """A message or a connection failed. `kind` is one of few values, for counting."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Session(Protocol):
    """A device's connection. Every method may raise SessionError, and takes at most the fleet's timeout."""

    async def connect(self) -> None:
        """Connect, so that the device can send."""
        ...

    async def send(self, path: str, payload: bytes) -> None:
        """Send to a resource path, and wait for the acknowledgement."""
        ...

    async def listen(self, path: str) -> None:
        """Subscribe to pushes to a resource path."""
        ...

    async def close(self) -> None:
        """Disconnect, and close the socket."""
        ...
