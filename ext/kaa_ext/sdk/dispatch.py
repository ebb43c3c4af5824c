"""The way of one ClientData through an extension: decode it, find its handler, answer it.

Routing is in routes.py; the forms of handlers are in handlers.py.

Source: 4/ESP "Extension Service Protocol".
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import TYPE_CHECKING, Any

from kaa_gateway.bus import subjects
from kaa_gateway.bus.clock_skew import HELD_MAX_MS, TOLERANCE_MS
from kaa_gateway.bus.messages import now_ms
from kaa_gateway.wire.esp import ClientData, MalformedAvro, decode_client_data, encode_extension_data
from nats.aio.msg import Msg

from kaa_ext.sdk.durable import StoredMessage
from kaa_ext.sdk.errors import ExtensionError, NotDelivered, PayloadTooLarge
from kaa_ext.sdk.handlers import Middleware, bind, chain, first_of, is_stream, response_of
from kaa_ext.sdk.logs import LimitedLog
from kaa_ext.sdk.requests import INTERNAL_ERROR, NOT_FOUND, Handler, Request, Response, Result
from kaa_ext.sdk.routes import Respond, Route, Routes

if TYPE_CHECKING:
    from kaa_ext.sdk.extension import Extension

BAD_REQUEST = 400
"""The lowest status of an error."""
SERVER_ERRORS = 500
"""The first of the status codes for errors that are not the device's fault."""
TRACE_PARENT = "traceparent"
"""The header of W3C Trace Context."""
REPLICA_SUBJECT = subjects.replica("*", "esp", subjects.EXTENSION_DATA).split("*")


class Dispatcher:
    """Handles the requests of one extension. `tasks` are requests in progress and other work that a drain waits for."""

    def __init__(self, extension: "Extension", concurrency: int, limited: LimitedLog) -> None:
        self.middleware: list[Middleware] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.draining = False
        self._extension = extension
        self._stats = extension.stats
        self._limited = limited
        self._routes = Routes()
        self._slots = asyncio.Semaphore(concurrency)
        self._held_at = 0
        """When a request last waited for a slot, in milliseconds."""

    def add(self, resource_path: str, function: Handler, respond: Respond) -> None:
        """Register a handler. Raise ValueError for a wrong pattern, TypeError for wrong parameters."""
        self._routes.add(resource_path, bind(function), respond, is_stream(function))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine that a drain waits for."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def receive(self, message: Msg | StoredMessage) -> None:
        """Handle one ClientData. Waits while `concurrency` handlers run, and so holds up the subscription."""
        try:
            data = decode_client_data(message.data)
        except MalformedAvro as error:
            self._stats["malformed"] += 1
            self._limited.warning(error.reason, "ClientData is malformed and dropped")
            await self._done(message)
            return
        deadline = data.timestamp + data.timeout if data.timeout > 0 else None
        now = now_ms()
        if data.timestamp > now + TOLERANCE_MS:
            self._note_skew(data.timestamp - now)
        if deadline is not None and deadline < now:
            self._stats["expired"] += 1
            if not isinstance(message, StoredMessage) and not self._is_behind(now):
                self._note_skew(data.timestamp - now)
            await self._done(message)
            return
        found = self._routes.find(data.resource_path)
        if found is None:
            self._stats["not_found"] += 1
            await self._answer(message, data, NOT_FOUND, "requested")
            await self._done(message)
            return
        route, parameters = found
        request = Request(
            endpoint_id=data.endpoint_id,
            app_version_name=data.app_version_name,
            resource_path=data.resource_path,
            request_id=data.request_id,
            payload=data.payload,
            correlation_id=data.correlation_id,
            timestamp=data.timestamp,
            deadline=deadline,
            config_name=data.config_name,
            parameters=parameters,
            route=route.pattern,
            gateway_replica_id=_replica_id(message.reply),
            trace_parent=message.headers.get(TRACE_PARENT) if message.headers else None,
        )
        if self._slots.locked():
            self._held_at = now
        await self._slots.acquire()
        self._stats["requests"] += 1
        if self.middleware or route.streams:
            self._in_task(self._handle(message, data, route, request))
            return
        try:
            result = route.handler(request)
            if isinstance(result, Awaitable):
                self._in_task(self._finish(message, data, route, result))
                return
            response = response_of(result)
        except Exception as error:  # noqa: BLE001 - one bad handler must not take the service down
            response = self._failure(route, error)
            if await self._retried(message, error):
                self._slots.release()
                return
        self._slots.release()
        await self._answer(message, data, response, route.respond)
        await self._done(message)

    def _is_behind(self, now: int) -> bool:
        """Return whether messages wait or have waited here, so that one may have expired meanwhile."""
        return self._extension.waiting > 0 or now - self._held_at < HELD_MAX_MS

    def _note_skew(self, difference: int) -> None:
        """Note a message whose timestamp the clock of this machine contradicts. `difference` is in milliseconds."""
        self._stats["clock_skew"] += 1
        self._limited.warning(
            "clock_skew",
            "the timestamp of a request is wrong: the clocks of two machines differ, or NATS held it up",
            seconds=difference / 1000,
        )

    def _in_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a request in its own task, which releases its slot at the end."""
        self.spawn(work).add_done_callback(lambda _: self._slots.release())

    async def _finish(
        self, message: Msg | StoredMessage, data: ClientData, route: Route, result: Awaitable[Result]
    ) -> None:
        try:
            response = response_of(await result)
        except Exception as error:  # noqa: BLE001 - as above
            response = self._failure(route, error)
            if await self._retried(message, error):
                return
        await self._answer(message, data, response, route.respond)
        await self._done(message)

    async def _handle(
        self, message: Msg | StoredMessage, data: ClientData, route: Route, request: Request
    ) -> None:
        """Handle a request whose handler has middleware around it, or streams."""
        stream: AsyncIterator[Result] | None = None
        failure: Exception | None = None

        async def innermost(request: Request) -> Response:
            nonlocal stream, failure
            try:
                result = route.handler(request)
                if route.streams:
                    stream = result
                    result = first_of(result)
                if isinstance(result, Awaitable):
                    result = await result
                return response_of(result)
            except Exception as error:  # noqa: BLE001 - as above
                failure = error
                return self._failure(route, error)

        try:
            response = response_of(await chain(self.middleware, innermost)(request))
        except Exception as error:  # noqa: BLE001 - middleware may fail as well
            failure = error
            response = self._failure(route, error)
        if failure is not None and await self._retried(message, failure):
            return
        await self._answer(message, data, response, route.respond)
        await self._done(message)
        if stream is not None:
            await self._push_rest(stream, route, request)

    async def _push_rest(self, stream: AsyncIterator[Result], route: Route, request: Request) -> None:
        """Push the items of a stream after the first, until it ends or the service drains."""
        try:
            async for item in stream:
                response = response_of(item)
                if request.endpoint_id is not None:
                    await self._extension.push(
                        request.endpoint_id,
                        request.resource_path,
                        response.payload or b"",
                        app_version_name=request.app_version_name,
                        status_code=response.status_code,
                    )
                if self.draining:
                    break
        except NotDelivered as error:
            self._stats["undelivered"] += 1
            self._limited.warning("undelivered", "push was not delivered", error=str(error))
        except Exception as error:  # noqa: BLE001 - as above
            self._failure(route, error)

    async def _done(self, message: Msg | StoredMessage) -> None:
        """Acknowledge a message that came from a stream."""
        if isinstance(message, StoredMessage):
            try:
                await message.done()
            except NotDelivered as error:
                self._limited.warning("unacknowledged", "a message will come again", error=str(error))

    async def _retried(self, message: Msg | StoredMessage, error: Exception) -> bool:
        """Have a message of a stream delivered again after its handler failed. Return False if that is no use.

        A request that the device got wrong would fail again; only errors of ours may pass.
        """
        refused = isinstance(error, ExtensionError) and error.status_code < SERVER_ERRORS
        if not isinstance(message, StoredMessage) or refused or message.is_last_try:
            return False
        self._stats["retried"] += 1
        try:
            await message.retry()
        except NotDelivered as failure:
            self._limited.warning("unacknowledged", "a message will come again", error=str(failure))
        return True

    def _failure(self, route: Route, error: Exception) -> Response:
        if isinstance(error, ExtensionError):
            return Response.of_error(error)
        self._stats["failed"] += 1
        reason = f"{type(error).__name__} at {route.pattern}"
        self._limited.warning(reason, "handler failed", exc_info=error)
        return INTERNAL_ERROR

    async def _answer(
        self, message: Msg | StoredMessage, data: ClientData, response: Response, respond: Respond
    ) -> None:
        wanted = data.request_id is not None or respond == "always"
        if not wanted and not (respond == "errors" and response.status_code >= BAD_REQUEST):
            self._stats["unanswered"] += 1
            return
        subject = message.reply or self._extension.push_subject()
        try:
            try:
                await self._extension.answer(subject, self._encoded(data, response))
            except PayloadTooLarge:
                self._limited.warning("response_too_large", "response is larger than NATS takes")
                await self._extension.answer(subject, self._encoded(data, INTERNAL_ERROR))
        except NotDelivered as error:
            self._stats["undelivered"] += 1
            self._limited.warning("undelivered", "response was not delivered", error=str(error))
        else:
            self._stats["responses"] += 1

    def _encoded(self, data: ClientData, response: Response) -> bytes:
        return encode_extension_data(
            data.correlation_id,
            now_ms(),
            0,
            data.app_version_name,
            self._extension.name,
            data.endpoint_id,
            data.resource_path,
            data.request_id,
            response.payload,
            response.status_code,
            response.reason_phrase,
        )


def _replica_id(reply: str) -> str | None:
    """Return the gateway replica that the reply-to of a request names, or None."""
    before, after = REPLICA_SUBJECT
    if reply.startswith(before) and reply.endswith(after):
        return reply[len(before) : -len(after)] or None
    return None
