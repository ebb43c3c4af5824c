"""nats-py's client, with what it lacks.

- User, password and token of a URL are percent-decoded (RFC 3986), and are those of the server that is connected to.
- A URL with the scheme `tls` means TLS, also where the server does not require it.
- TLS files are read for each connection.
- The newest INFO says how large a message may be.
- A file that cannot be used fails one attempt, and does not end the reconnecting.
- What a server sends or does before the first PONG is understood: another INFO, a PING, the end of the connection.

The methods that are overridden here are not nats-py's interface; tests/unit/bus/test_nats_client.py holds them.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import ParseResult, unquote

import msgspec
import nats.errors
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.transport import TcpTransport

from kaa_gateway.errors import UNDECODABLE


class HandshakeTransport(TcpTransport):
    """A transport on which nats-py reads the lines of a handshake: INFO, then PONG or an error.

    Another INFO before the PONG goes to `on_info`. nats-py would take that for the PONG, and wait for ever.
    """

    def __init__(self, on_info: Callable[[bytes], Awaitable[None]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._on_info = on_info
        self._greeted = False

    async def readline(self) -> bytes:
        """Return the next line that nats-py understands. Raise ConnectionResetError at the end of the connection."""
        while True:
            line: bytes = await super().readline()  # type: ignore[no-untyped-call]
            if not line.endswith(b"\n"):
                raise ConnectionResetError("the server has closed the connection")
            if line.startswith(b"INFO ") and self._greeted:
                await self._on_info(line[5:])
            elif line == b"PING\r\n":
                self.write(b"PONG\r\n")  # type: ignore[no-untyped-call]
            else:
                self._greeted = True
                return line


class NatsClient(Client):
    """A client whose TLS contexts are made by `tls_context`, one for each connection."""

    def __init__(self, tls_context: Callable[[], ssl.SSLContext] = ssl.create_default_context) -> None:
        super().__init__()
        self._tls_context = tls_context
        self._early_info: dict[str, Any] | None = None
        self.connect_urls: object = None
        """The servers of the cluster, as the newest INFO tells them."""

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """The context for the next connection. Raise nats.errors.Error if a file cannot be used."""
        try:
            return self._tls_context()
        except Exception as error:
            raise nats.errors.Error(str(error)) from error

    async def _connect_to_server(self, server: Srv) -> None:
        server.last_attempt = time.monotonic()
        self._early_info = None
        self._transport = HandshakeTransport(self._on_early_info)
        await self._transport.connect(server.uri, DEFAULT_BUFFER_SIZE, self.options["connect_timeout"])

    async def _on_early_info(self, text: bytes) -> None:
        """Handle an INFO that comes before the first PONG."""
        try:
            info = msgspec.json.decode(text, type=dict)
        except UNDECODABLE as error:
            raise nats.errors.Error("an INFO that is not JSON") from error
        self._early_info = info

    async def _process_connect_init(self) -> None:
        await super()._process_connect_init()
        early, self._early_info = self._early_info, None
        if early is not None:
            await self._process_info(early)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Handle an INFO; the first one of a connection decides on TLS and is followed by CONNECT."""
        self.connect_urls = info.get("connect_urls", self.connect_urls)
        if initial_connection and self._current_server is not None:
            if self._current_server.uri.scheme == "tls":
                info["tls_required"] = True
            self._take_login(self._current_server.uri)
        elif isinstance(limit := info.get("max_payload"), int) and limit > 0:
            self._max_payload = limit
        await super()._process_info(info, initial_connection)

    def _take_login(self, uri: ParseResult) -> None:
        """Take the credentials of the server's URL. A server that was learned from INFO gets those used before."""
        if uri.username is None:
            return
        name = unquote(uri.username)
        if uri.password is None:
            self.options |= {"user": None, "password": None, "token": name}
        else:
            self.options |= {"user": name, "password": unquote(uri.password), "token": None}

    def _connect_command(self) -> bytes:
        """Return the line CONNECT. Raise nats.errors.Error if the credentials cannot be used."""
        try:
            return super()._connect_command()
        except (nats.errors.Error, OSError):
            raise
        except Exception as error:
            raise nats.errors.Error(
                f"the credentials cannot be used: {error or type(error).__name__}"
            ) from error
