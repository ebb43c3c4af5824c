"""A device of KP/UDP on the bench's client."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from kaa_bench.peers.kpudp_client import KpudpClient, RefusedError, UnansweredError
from kaa_bench.peers.secure_kpudp_client import SecureKpudpClient
from kaa_bench.sim.sessions import Pushed, SessionError


class KpudpSession:
    """See `Session`. With an `identity` and its pre-shared key in hexadecimal it is encrypted."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout: float,
        pushed: Pushed,
        source: tuple[str, int] | None = None,
        identity: tuple[str, str] | None = None,
    ) -> None:
        self._client = KpudpClient(port, host=host, source=source)
        if identity is not None:
            name, key = identity
            self._client = SecureKpudpClient(
                port, name.encode(), bytes.fromhex(key), host=host, source=source
            )
        self._timeout = timeout
        self._pushed = pushed
        self._reading: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """See `Session.connect`: open a socket."""
        try:
            await self._client.rebind()
        except OSError as error:
            raise SessionError(f"connect: {type(error).__name__}") from None

    async def send(self, path: str, payload: bytes) -> None:
        """See `Session.send`: CONFIRMED DATA."""
        await self._wait(self._client.confirmed(path, payload))

    async def listen(self, path: str) -> None:
        """See `Session.listen`: send an announcement."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        await self._wait(self._client.ping(path))

    async def _wait(self, exchange: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await exchange
        except (TimeoutError, UnansweredError):
            raise SessionError("not acknowledged in time") from None
        except RefusedError as error:
            raise SessionError(f"reset {error.reason}") from None

    async def _read(self) -> None:
        while True:
            push = await self._client.pushes.get()
            self._pushed(push.path, push.payload)

    async def close(self) -> None:
        """See `Session.close`."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
            self._reading = None
        await self._client.__aexit__()
