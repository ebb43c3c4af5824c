"""One device's conversation with the gateway, by protocol: connect, send, and be pushed to."""

from collections.abc import Callable
from typing import Protocol

from kaa_bench.errors import BenchError

Pushed = Callable[[str, bytes], None]
"""Called with the resource path and the payload of what nobody asked for."""


class SessionError(BenchError):
    """A message or a connection failed; `kind` is one of few, for counting."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Session(Protocol):
    """A device's connection. Every method raises SessionError, and none takes longer than the fleet's time-out."""

    async def connect(self) -> None:
        """Be ready to send."""
        ...

    async def send(self, path: str, payload: bytes) -> None:
        """Send to a resource path, and return when it is acknowledged."""
        ...

    async def listen(self, path: str) -> None:
        """Say that pushes to a resource path are wanted."""
        ...

    async def close(self) -> None:
        """Take leave, and free the socket."""
        ...
