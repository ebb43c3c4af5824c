"""An extension service: 4/ESP on one side, handlers registered by resource path on the other.

Requests come in as ClientData, on the subject of the instance (shared by its replicas through a queue
group) and on that of this replica; answers and pushes go out as ExtensionData. Routing lives in routes.py,
NATS in connection.py.

Source: 4/ESP "Extension Service Protocol", 3/ISM "Inter-Service Messaging".
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

import structlog
from nats.aio.msg import Msg

from ext.connection import DEFAULT_NATS_URL, Connection, Interest
from ext.durable import ACK_WAIT_S, DurableConsumer, StoredMessage
from ext.errors import ExtensionError, NotDelivered, PayloadTooLarge
from ext.logs import LimitedLog
from ext.requests import INTERNAL_ERROR, NOT_FOUND, Handler, Request, Response, Result, now_ms
from ext.routes import Respond, Route, Routes
from ext.runner import run
from gateway.bus import subjects
from gateway.wire.esp import ClientData, MalformedAvro, decode_client_data, encode_extension_data

AnyHandler = TypeVar("AnyHandler", bound=Handler)

CONCURRENCY = 256
"""Async handlers of one extension that run at a time; further requests wait, in order."""
DRAIN_TIMEOUT_S = 25.0
"""How long `stop` waits for what is in flight: within the 30 s that a Kaa service has for its shutdown."""
DEFAULT_GATEWAY_INSTANCE = "kpc"

STATS = (
    "requests",  # ClientData that reached a handler
    "responses",  # ExtensionData sent as answers
    "pushes",  # ExtensionData sent by `push`
    "unanswered",  # results that were not wanted: no request ID
    "retried",  # requests of a stream that come again because their handler failed
    "failed",  # requests whose handler raised something else than ExtensionError
    "not_found",  # requests for a resource path without handler
    "expired",  # ClientData dropped because its timeout was over
    "malformed",  # ClientData dropped because it is not the Avro of 4/ESP
    "overrun",  # messages dropped because they came in faster than they were handled
    "undelivered",  # answers that NATS did not take
    "abandoned",  # requests that `stop` did not wait for any longer
)


class Extension:
    """One replica of an extension service instance.

    `name` is the service instance name, which replicas share; `replica_id` is unique in the cluster
    (default: random). `gateway_instance` is the communication service that pushes go to. With `affinity`,
    the gateway sends further messages of an endpoint which this replica has answered to this replica.
    A `durable` extension takes its requests from the stream that the gateway keeps for it, and acknowledges
    each when its handler is done; one that takes longer than `ack_wait_s` comes again.

    Use it as `async with extension:`, or `await extension.run()`. `stats` counts, by the names in `STATS`.
    """

    def __init__(
        self,
        name: str,
        *,
        nats_urls: Sequence[str] = (DEFAULT_NATS_URL,),
        replica_id: str | None = None,
        gateway_instance: str = DEFAULT_GATEWAY_INSTANCE,
        affinity: bool = False,
        durable: bool = False,
        ack_wait_s: float = ACK_WAIT_S,
        concurrency: int = CONCURRENCY,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
    ) -> None:
        self.name = _subject_name("extension instance name", name)
        self.replica_id = _subject_name("replica ID", replica_id or f"{name}-{secrets.token_hex(8)}")
        self.stats = dict.fromkeys(STATS, 0)
        self._log: Any = structlog.get_logger(extension=name)
        self._limited = LimitedLog(self._log)
        self._gateway_instance = _subject_name("gateway instance name", gateway_instance)
        self._replica_subject = subjects.replica(self.replica_id, "esp", subjects.CLIENT_DATA)
        self._affinity_subject = self._replica_subject if affinity else ""
        self._drain_timeout_s = drain_timeout_s
        self._routes = Routes()
        self._slots = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        instance_subject = subjects.service(name, "esp", subjects.CLIENT_DATA)
        self._connection = Connection(
            name,
            self.replica_id,
            nats_urls,
            [
                *([] if durable else [Interest(instance_subject, name, self._receive)]),
                Interest(self._replica_subject, "", self._receive),
            ],
            self._count_overrun,
            DurableConsumer(name, self._receive, ack_wait_s) if durable else None,
        )

    def handler(
        self, resource_path: str, *, respond: Respond = "requested"
    ) -> Callable[[AnyHandler], AnyHandler]:
        """Register the decorated function for a resource path, or a pattern of them (see routes.py).

        Devices get no answer to requests without request ID, unless `respond` is "always".
        """

        def register(function: AnyHandler) -> AnyHandler:
            self._routes.add(resource_path, function, respond)
            return function

        return register

    async def push(
        self,
        endpoint_id: str,
        resource_path: str,
        payload: bytes,
        *,
        app_version_name: str | None = None,
        gateway_instance: str | None = None,
        status_code: int = 200,
    ) -> None:
        """Send an endpoint what it did not ask for. NotDelivered when NATS does not take it.

        Every replica of the gateway instance gets the message; the one that the endpoint is connected to
        delivers it.
        """
        subject = self._push_subject(gateway_instance)
        datum = encode_extension_data(
            str(uuid4()), now_ms(), 0, app_version_name, self.name, endpoint_id, resource_path, None, payload,
            status_code,
        )  # fmt: skip
        await self._connection.publish(subject, datum, self._affinity_subject)
        self.stats["pushes"] += 1

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Publish any other message, such as an event. NotDelivered when NATS does not take it."""
        await self._connection.publish(subject, payload, reply)

    async def start(self) -> None:
        """Connect and subscribe, waiting for NATS as long as it takes."""
        try:
            await self._connection.open()
        except BaseException:
            await self._connection.close()
            raise
        self._log.info("extension is ready", replica_id=self.replica_id)

    async def stop(self) -> None:
        """Drain: take nothing new, finish what was accepted, send its answers, disconnect."""
        draining = asyncio.create_task(self._drain())
        try:
            # Not a timeout that cancels: nats-py swallows a cancellation in some places.
            await asyncio.wait({draining}, timeout=self._drain_timeout_s)
            if not draining.done():
                abandoned = len(self._tasks) + self._connection.waiting
                self.stats["abandoned"] += abandoned
                self._log.error("drain took too long", after_s=self._drain_timeout_s, abandoned=abandoned)
        finally:
            for task in [draining, *self._tasks]:
                task.cancel()
            await self._connection.close()
        self._log.info(
            "extension has stopped", **{name: count for name, count in self.stats.items() if count}
        )

    async def run(self) -> None:
        """Serve until SIGINT or SIGTERM, then drain."""
        await run(self)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _drain(self) -> None:
        await self._connection.drain()
        while self._tasks:
            await asyncio.wait(self._tasks)
        try:
            await self._connection.flush()
        except NotDelivered as error:
            self._log.error("the last answers may not have left", error=str(error))

    async def _receive(self, message: Msg | StoredMessage) -> None:
        """Take one ClientData. Waits, and the subscription with it, while `concurrency` handlers run."""
        try:
            data = decode_client_data(message.data)
        except MalformedAvro as error:
            self.stats["malformed"] += 1
            self._limited.warning(error.reason, "ClientData is malformed and dropped")
            await self._done(message)
            return
        deadline = data.timestamp + data.timeout if data.timeout > 0 else None
        if deadline is not None and deadline < now_ms():
            self.stats["expired"] += 1
            await self._done(message)
            return
        found = self._routes.find(data.resource_path)
        if found is None:
            self.stats["not_found"] += 1
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
        )
        await self._slots.acquire()
        self.stats["requests"] += 1
        try:
            result = route.handler(request)
        except Exception as error:  # noqa: BLE001 - one bad handler must not take the service down
            response = self._failure(route, error)
            if await self._retried(message, error):
                self._slots.release()
                return
        else:
            if isinstance(result, Awaitable):
                task = asyncio.create_task(self._finish(message, data, route, result))
                self._tasks.add(task)
                task.add_done_callback(self._finished)
                return
            response = self._response(route, result)
        self._slots.release()
        await self._answer(message, data, response, route.respond)
        await self._done(message)

    async def _finish(
        self, message: Msg | StoredMessage, data: ClientData, route: Route, result: Awaitable[Result]
    ) -> None:
        try:
            response = self._response(route, await result)
        except Exception as error:  # noqa: BLE001 - as above
            response = self._failure(route, error)
            if await self._retried(message, error):
                return
        await self._answer(message, data, response, route.respond)
        await self._done(message)

    async def _done(self, message: Msg | StoredMessage) -> None:
        """A message needs nothing more: if it came from a stream, that may forget it."""
        if isinstance(message, StoredMessage):
            try:
                await message.done()
            except NotDelivered as error:
                self._limited.warning("unacknowledged", "a message will come again", error=str(error))

    async def _retried(self, message: Msg | StoredMessage, error: Exception) -> bool:
        """Have a message of a stream delivered again whose handler has failed; False if that is not to be."""
        if not isinstance(message, StoredMessage) or isinstance(error, ExtensionError) or message.is_last_try:
            return False
        self.stats["retried"] += 1
        try:
            await message.retry()
        except NotDelivered as failure:
            self._limited.warning("unacknowledged", "a message will come again", error=str(failure))
        return True

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    def _response(self, route: Route, result: object) -> Response:
        if isinstance(result, Response):
            return result
        if result is None:
            return Response()
        if isinstance(result, bytes):
            return Response(payload=result)
        return self._failure(route, TypeError(f"handler returned {type(result).__name__}"))

    def _failure(self, route: Route, error: Exception) -> Response:
        if isinstance(error, ExtensionError):
            return Response.of_error(error)
        self.stats["failed"] += 1
        reason = f"{type(error).__name__} at {route.pattern}"
        self._limited.warning(reason, "handler failed", exc_info=error)
        return INTERNAL_ERROR

    async def _answer(
        self, message: Msg | StoredMessage, data: ClientData, response: Response, respond: Respond
    ) -> None:
        if data.request_id is None and respond != "always":
            self.stats["unanswered"] += 1
            return
        subject = message.reply or self._push_subject()
        try:
            try:
                await self._connection.publish(subject, self._encoded(data, response), self._affinity_subject)
            except PayloadTooLarge:
                self._limited.warning("response_too_large", "response is larger than NATS takes")
                await self._connection.publish(
                    subject, self._encoded(data, INTERNAL_ERROR), self._affinity_subject
                )
        except NotDelivered as error:
            self.stats["undelivered"] += 1
            self._limited.warning("undelivered", "response was not delivered", error=str(error))
        else:
            self.stats["responses"] += 1

    def _encoded(self, data: ClientData, response: Response) -> bytes:
        return encode_extension_data(
            data.correlation_id,
            now_ms(),
            0,
            data.app_version_name,
            self.name,
            data.endpoint_id,
            data.resource_path,
            data.request_id,
            response.payload,
            response.status_code,
            response.reason_phrase,
        )

    def _push_subject(self, gateway_instance: str | None = None) -> str:
        if gateway_instance is None:
            name = self._gateway_instance
        else:
            name = _subject_name("gateway instance name", gateway_instance)
        return subjects.service(name, "esp", subjects.EXTENSION_DATA)

    def _count_overrun(self) -> None:
        self.stats["overrun"] += 1
        self._limited.warning("overrun", "requests come in faster than they are handled and are dropped")


def _subject_name(what: str, name: str) -> str:
    """The name, if it may stand in a NATS subject; ValueError if not."""
    if not subjects.NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r}: expected 1 to 128 letters, digits, dashes and underscores")
    return name
