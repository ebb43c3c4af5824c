"""Makes and keeps the link's connection to NATS: server list, TLS, credentials, back-off.

What goes over the connection is link.pyx's; nothing here runs per message.

Source: NATS documentation, "Client Protocol" (INFO, CONNECT) and "Connecting".
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from kaa_gateway import __version__
from kaa_gateway.bus.servers import Server, ServerList
from kaa_gateway.errors import BusError

if TYPE_CHECKING:
    from kaa_gateway.bus.connection import Connection
    from kaa_gateway.bus.credentials import Credentials
    from kaa_gateway.bus.link import Link

log = structlog.get_logger("gateway.bus")

CONNECT_TIMEOUT = 5.0
"""Seconds for a TCP connection and the NATS handshake on it."""
BACKOFF_FIRST = 0.05
"""Seconds of the first pause after every server of the list was tried in vain; it doubles."""
BACKOFF_MAX = 2.0
"""Seconds of the longest pause. The pauses are jittered by half, so that a fleet does not return at once."""
STEADY_AFTER = 5.0
"""Seconds that a connection must stand for the pauses to begin small again: one that falls at once is a failure too."""
LAME_DUCK_POLL = 0.5
"""Seconds between looks whether the server is in lame duck mode."""
LAME_DUCK_DRAIN = 2.0
"""Seconds that such a server has to confirm what it was sent."""


@dataclass(frozen=True)
class TlsOptions:
    """How TLS is used towards NATS.

    Of the PEM files, None takes the system's trust store, or presents no certificate. With `handshake_first`, each
    connection begins with TLS, as a server with that setting expects it; INFO comes behind.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    handshake_first: bool = False

    def context(self) -> ssl.SSLContext:
        """Return a client context that verifies the server; BusError if a file cannot be used."""
        file = self.ca_file
        try:
            context = ssl.create_default_context(cafile=file)
            if self.cert_file:
                file = self.cert_file
                context.load_cert_chain(file, self.key_file)
        except OSError as error:
            raise BusError("nats_tls_file", f"{file} cannot be used for TLS: {error}") from error
        return context


def takes_headers(info: dict[str, Any]) -> bool:
    """Return whether a server takes messages with headers; one that does not reports no missing extension either."""
    return bool(info.get("headers"))


async def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket connected to the first address of a host that takes the connection; OSError if none does."""
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with contextlib.ExitStack() as opened:
            try:
                made = opened.enter_context(socket.socket(family, kind, protocol))
                made.setblocking(False)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.sock_connect(made, address)
            except OSError as error:
                failure = failure or error
            else:
                opened.pop_all()
                return made
    raise failure or OSError(f"{host} has no address")


class Connector:
    """Keeps a Link connected to one server of a list, in turn, for as long as it runs.

    With `echo` the server sends us what we publish on subjects that we subscribe to. BusError if a TLS file cannot be
    used.
    """

    def __init__(
        self,
        link: Link,
        urls: tuple[str, ...],
        *,
        name: str,
        tls: TlsOptions,
        credentials: Credentials | None,
        echo: bool = False,
    ) -> None:
        tls.context()
        self._link = link
        self._servers = ServerList(urls)
        self._name = name
        self._echo = echo
        self._tls = tls
        self._credentials = credentials
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reported: dict[Server, str] = {}
        self.last_error = "not connected yet"

    def start(self) -> None:
        """Begin to connect; `Link.ready` tells when it stands."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="nats-connector")

    def on_lost(self, sentence: str) -> None:
        """Connect again: the link's connection has ended."""
        self.last_error = sentence
        log.warning("NATS connection lost", error=sentence)
        self._lost.set()

    async def stop(self) -> None:
        """Stop reconnecting and close the link."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._link.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause = BACKOFF_FIRST
        while True:
            for server in self._servers.all():
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT):
                        await self._connect(server)
                except Exception as error:  # noqa: BLE001 - a peer that answers anything at all must not end the trying
                    self._link.abort()
                    self._report(server, error)
                    continue
                log.info("connected to NATS", server=str(server))
                self._reported.clear()
                connected_at = loop.time()
                await self._until_lost()
                self._servers.discover(server, (self._link.info or {}).get("connect_urls"))
                if loop.time() - connected_at > STEADY_AFTER:
                    pause = BACKOFF_FIRST
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, BACKOFF_MAX)

    async def _until_lost(self) -> None:
        """Return when the connection has ended; end it when its server is about to (lame duck mode)."""
        while not self._lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAME_DUCK_POLL):
                    await self._lost.wait()
            if not self._lost.is_set() and (self._link.info or {}).get("ldm"):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LAME_DUCK_DRAIN):
                        await self._link.drain()
                self._link.abort("the server is in lame duck mode")

    def _report(self, server: Server, error: Exception) -> None:
        """Log each new kind of failure of a server once, not each attempt."""
        if isinstance(error, BusError):
            sentence = str(error)
        elif isinstance(error, TimeoutError):
            sentence = "no answer in time"
        else:
            sentence = f"{type(error).__name__}: {error}"
        if sentence != self._reported.get(server):
            log.error("cannot connect to NATS, trying on", server=str(server), error=sentence)
        self._reported[server] = self.last_error = sentence

    async def _connect(self, server: Server) -> None:
        link = self._link
        self._lost.clear()
        connection = link.begin()
        info_received = connection.expect_info()
        name = server.certificate_name
        first = self._tls.handshake_first
        plain = await open_socket(server.host, server.port)
        if first:
            await self._secure(plain, connection, name)
        else:
            link.use_socket(plain)
        info: dict[str, Any] = await info_received
        if not first and (server.tls or info.get("tls_required")):
            await self._secure(link.give_socket(), connection, name)
        pong_received = connection.expect_pong()
        link.write_handshake(self._connect_line(server, info) + link.subscription_lines() + b"PING\r\n")
        await pong_received
        link.resume(headers=takes_headers(link.info or info))

    async def _secure(self, plain: socket.socket, connection: Connection, name: str) -> None:
        """Carry the connection by TLS over a connected socket."""
        with contextlib.ExitStack() as opened:
            opened.enter_context(plain)
            await asyncio.get_running_loop().create_connection(
                lambda: connection, sock=plain, ssl=self._tls.context(), server_hostname=name
            )
            opened.pop_all()

    def _connect_line(self, server: Server, info: dict[str, Any]) -> bytes:
        options: dict[str, Any] = {
            "verbose": False,
            "pedantic": False,
            "lang": "cython",
            "version": __version__,
            "protocol": 1,
            "name": self._name,
            "echo": self._echo,
            "headers": takes_headers(info),
            "no_responders": takes_headers(info),
        }
        if server.user is not None:
            options |= {"user": server.user, "pass": server.password}
        if server.token is not None:
            options["auth_token"] = server.token
        if self._credentials is not None:
            self._credentials.read()
            options["jwt"] = self._credentials.jwt
            if nonce := info.get("nonce"):
                options["sig"] = self._credentials.sign(nonce)
        return b"CONNECT " + msgspec.json.encode(options) + b"\r\n"
