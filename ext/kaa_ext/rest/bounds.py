"""Bounds the requests that are in progress, the time for a body, and the time for the head of a request."""

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from kaa_ext.rest.problems import ProblemError, send_problem

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

REQUESTS_MAX = 64
"""Requests in progress; one more gets 503."""
CONNECTIONS_MAX = 512
"""Connections; one more is closed."""
REQUEST_TIMEOUT_S = 30.0
"""Seconds that a client has for the head of a request, and for its body."""
BODY_SIZE_MAX = 512 * 1024
"""Bytes of a body: as many as the metadata of an endpoint may have."""


class Bounds:
    """The bounds of requests, around an application."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app
        self._running = 0

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, unless there are too many."""
        if self._running >= REQUESTS_MAX:
            await send_problem(
                send, ProblemError(503, "Too many requests are in progress", headers={"Retry-After": "1"})
            )
            return
        complete = False

        async def timed() -> Any:
            nonlocal complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    message = await receive()
            except TimeoutError as error:
                raise ProblemError(
                    408, "The body did not arrive in time", headers={"Connection": "close"}
                ) from error
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        self._running += 1
        try:
            await self._app(scope, timed, send)
        finally:
            self._running -= 1


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which closes a connection whose next request does not arrive in time."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request, or close at once if there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            transport.abort()
            return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Handle what has arrived. The time of a head ends when its request has begun."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._wait()

    def _wait(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(REQUEST_TIMEOUT_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
