"""A device of HTTP/1.1: one keep-alive connection, one request at a time; httptools reads the responses.

Source: RFC 9112; Kaa's HTTP binding of 1/KP.
"""

import asyncio
import base64
import ssl
from typing import cast

import httptools

from kaa_bench.sim.sessions import SessionError


class HttpSession(asyncio.Protocol):
    """See `Session`. The first request connects, and later ones after the gateway has closed the connection."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout: float,
        user: str | None = None,
        password: str | None = None,
        source: tuple[str, int] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = host, port
        self._authorization = "" if user is None else f"Authorization: {basic(user, password)}\r\n"
        self._source, self._tls = source, tls
        self._timeout = timeout
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._response: asyncio.Future[int] | None = None
        self._free = asyncio.Lock()

    async def connect(self) -> None:
        """See `Session.connect`."""
        host, port = self._address
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.get_running_loop().create_connection(
                    lambda: self,
                    host,
                    port,
                    ssl=self._tls,
                    server_hostname=host if self._tls else None,
                    local_addr=self._source,
                )
        except TimeoutError:
            raise SessionError("connect timed out") from None
        except OSError as error:
            raise SessionError(f"connect: {type(error).__name__}") from None

    async def send(self, path: str, payload: bytes) -> None:
        """See `Session.send`."""
        async with self._free:
            if self._transport is None:
                await self.connect()
            assert self._transport is not None
            self._response = asyncio.get_running_loop().create_future()
            host, port = self._address
            head = (
                f"POST /{path} HTTP/1.1\r\nHost: {host}:{port}\r\n{self._authorization}"
                f"Content-Length: {len(payload)}\r\n\r\n"
            )
            try:
                self._transport.write(head.encode() + payload)
                async with asyncio.timeout(self._timeout):
                    status = await self._response
            except TimeoutError:
                # A late response must not answer another request.
                self._end("late")
                raise SessionError("not answered in time") from None
            except RuntimeError:
                # uvloop raises it for a transport that has ended, before connection_lost.
                raise SessionError("connection lost") from None
            if status // 100 != 2:
                raise SessionError(f"status {status}")

    async def listen(self, path: str) -> None:
        """See `Session.listen`: HTTP has no pushes."""
        raise NotImplementedError

    async def close(self) -> None:
        """See `Session.close`."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    # ---------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._end("malformed response")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._end("connection lost")

    def on_message_complete(self) -> None:
        """Handle a complete response."""
        assert self._parser is not None
        if self._response is not None and not self._response.done():
            self._response.set_result(self._parser.get_status_code())
        if not self._parser.should_keep_alive():
            self._end("closed")

    def _end(self, kind: str) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        if self._response is not None and not self._response.done():
            self._response.set_exception(SessionError(kind))
            self._response.exception()


def basic(user: str, password: str | None) -> str:
    """Return the credentials of an Authorization field (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password or ''}".encode()).decode()
