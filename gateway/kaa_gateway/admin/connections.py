"""Bound the connections of a management server: their number, and the time that each may wait without a request.

aiohttp has neither bound. Without them, port scanners and broken probes would take the descriptors of devices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

CONNECTIONS_MAX = 64
"""Connections of one management server. One more takes the place of the one that has waited for longest."""
REQUEST_TIMEOUT = 30.0
"""Seconds that a client has for each of these: the head of its request; the body, until the answer is known; reading
the answer, and sending the head of the next request."""

Protocol = Callable[[], asyncio.Protocol]


class Connections:
    """The connections of one management server; `make_protocol` makes aiohttp's part of one."""

    def __init__(self) -> None:
        self._by_handler: dict[object, Connection] = {}
        self._waiting: dict[Connection, None] = {}
        self.make_protocol: Protocol | None = None

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        assert self.make_protocol is not None
        return Connection(self, self.make_protocol())

    def add(self, connection: Connection) -> bool:
        """Count a new connection; return False if there are too many, and all have a request."""
        if len(self._by_handler) >= CONNECTIONS_MAX:
            oldest = next(iter(self._waiting), None)
            if oldest is None:
                return False
            oldest.abort()
        self._by_handler[connection.handler] = connection
        self.wait(connection)
        return True

    def wait(self, connection: Connection) -> None:
        """Give a connection the time for its next request."""
        self._waiting[connection] = None
        connection.start_timer()

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._by_handler.pop(connection.handler, None)
        self._waiting.pop(connection, None)
        connection.stop_timer()

    @property
    def middleware(self) -> Middleware:
        """The middleware that notes which connections have a request."""

        @web.middleware
        async def noted(request: web.Request, handler: Handler) -> web.StreamResponse:
            connection = self._by_handler.get(request.protocol)
            if connection is None:
                return await handler(request)
            self._waiting.pop(connection, None)
            connection.start_timer()
            try:
                return await handler(request)
            finally:
                if request.protocol in self._by_handler:
                    self.wait(connection)

        return noted


class Connection(asyncio.Protocol):
    """One connection: passes all to aiohttp's `handler`, and closes when its time is over."""

    def __init__(self, connections: Connections, handler: asyncio.Protocol) -> None:
        self.handler = handler
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._started = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start, or close at once if there are too many connections."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        if not self._connections.add(self):
            self._transport.abort()
            return
        self._started = True
        self.handler.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        self._connections.remove(self)
        if self._started:
            self.handler.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        if self._started:
            self.handler.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass the client's end on."""
        return self.handler.eof_received()

    def pause_writing(self) -> None:
        """Pass it on that the client reads too slowly."""
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on that the client has read."""
        self.handler.resume_writing()

    def start_timer(self) -> None:
        """Give the connection REQUEST_TIMEOUT from now on."""
        self.stop_timer()
        self._timer = asyncio.get_running_loop().call_later(REQUEST_TIMEOUT, self.abort)

    def stop_timer(self) -> None:
        """Forget the time-out."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def abort(self) -> None:
        """Close now."""
        self._connections.remove(self)
        if self._transport is not None:
            self._transport.abort()
