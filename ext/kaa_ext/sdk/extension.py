"""One replica of an extension service: what a service registers, what it sends, and its life.

Requests arrive as ClientData, on the subject of the instance (shared by its replicas through a queue group) and on that
of this replica; answers and pushes leave as ExtensionData. What happens to one request is in dispatcher.pyx, messages
of other services are in subscriptions.py, NATS is in connection.py.

Source: 4/ESP "Extension Service Protocol", 3/ISM "Inter-Service Messaging", 9/ELCE.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar, Unpack, overload

import structlog
from kaa_gateway.bus import elce, subjects
from kaa_gateway.bus.messages import is_expired, now_ms
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from kaa_ext.messages import tstp
from kaa_ext.sdk import lifecycle, metadata_events, time_series
from kaa_ext.sdk.buckets import Bucket, JetStreamBucket, changes_subject
from kaa_ext.sdk.connection import Connection, Interest, NatsConnection
from kaa_ext.sdk.connectivity import Connectivity
from kaa_ext.sdk.dispatcher import Dispatcher
from kaa_ext.sdk.durable import ACK_WAIT_S, DurableConsumer
from kaa_ext.sdk.errors import NotDelivered, StateUnavailable
from kaa_ext.sdk.handlers import Middleware
from kaa_ext.sdk.lifecycle import AnyLifecycleHandler
from kaa_ext.sdk.logs import LimitedLog
from kaa_ext.sdk.message_batches import BatchSubscriber
from kaa_ext.sdk.metadata_events import AnyMetadataHandler
from kaa_ext.sdk.publisher import Publisher
from kaa_ext.sdk.push_options import PushOptions
from kaa_ext.sdk.push_receipt import PushReceipt
from kaa_ext.sdk.pushes import Pushes
from kaa_ext.sdk.receivers import MessageReceiver, RequestReceiver
from kaa_ext.sdk.requests import BatchHandler, Handler, Request
from kaa_ext.sdk.route import Route
from kaa_ext.sdk.routes import Respond
from kaa_ext.sdk.runner import run
from kaa_ext.sdk.state import State
from kaa_ext.sdk.stats import STATS
from kaa_ext.sdk.subscriptions import Subscriber, Subscriptions
from kaa_ext.sdk.time_series import AnyTimeSeriesHandler
from kaa_ext.sdk.urls import urls_of_environment
from kaa_ext.sdk.watched_bucket import WatchedBucket

T = TypeVar("T")
AnyHandler = TypeVar("AnyHandler", bound=Handler)
AnyBatchHandler = TypeVar("AnyBatchHandler", bound=BatchHandler)
AnyMiddleware = TypeVar("AnyMiddleware", bound=Middleware)
ConnectivityHandler: TypeAlias = Callable[[Connectivity], Awaitable[None]]
AnyConnectivityHandler = TypeVar("AnyConnectivityHandler", bound=ConnectivityHandler)

CONCURRENCY = 256
"""Requests of an extension that are in progress at a time; further ones wait, in order."""
PENDING_MESSAGES = 65_536
"""Messages that wait for others to end; further ones are dropped."""
PENDING_BYTES = 64 * 1024 * 1024
DRAIN_TIMEOUT_S = 25.0
"""How long `stop` waits for what is in flight: less than the 30 s that a Kaa service has for its shutdown."""
STATE_RETRY_S = 1.0
DEFAULT_GATEWAY_INSTANCE = "kpc"


class Extension:
    """One replica of an extension service instance.

    `name` is the service instance name, which replicas share; `replica_id` is unique in the cluster (default: random).
    `nats_urls` are by default those in the environment variable NATS_URLS. `gateway_instance` is the communication
    service that pushes go to. With `affinity`, the gateway sends later messages of an endpoint that this replica has
    answered to this replica. A `durable` extension takes its requests from the stream that the gateway keeps for it,
    and acknowledges each when its handler is done; a request that takes longer than `ack_wait_s` is delivered again.
    `state_replicas` is the number of NATS servers that keep each state. `jetstream_domain` is the JetStream domain of
    that stream and of states, for a service at a leaf node; by default, that of the server which it is connected to.

    Use it as `async with extension:`, or `await extension.run()`.
    """

    def __init__(
        self,
        name: str,
        *,
        nats_urls: Sequence[str] | None = None,
        replica_id: str | None = None,
        gateway_instance: str = DEFAULT_GATEWAY_INSTANCE,
        affinity: bool = False,
        durable: bool = False,
        ack_wait_s: float = ACK_WAIT_S,
        concurrency: int = CONCURRENCY,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
        state_replicas: int = 1,
        jetstream_domain: str | None = None,
    ) -> None:
        self.name = _subject_name("extension instance name", name)
        self.replica_id = _subject_name("replica ID", replica_id or f"{name}-{secrets.token_hex(8)}")
        self.has_fixed_replica_id = replica_id is not None
        stats = dict.fromkeys(STATS, 0)
        self._log: Any = structlog.get_logger(extension=name)
        self._limited = LimitedLog(self._log)
        self._gateway_instance = _subject_name("gateway instance name", gateway_instance)
        self._affinity_subject = (
            subjects.replica(self.replica_id, "esp", subjects.CLIENT_DATA) if affinity else ""
        )
        self.drain_timeout_s = drain_timeout_s
        self._state_replicas = state_replicas
        self._has_started = False
        self._states: dict[str, State[Any]] = {}
        self._starters: list[Callable[[], Awaitable[None]]] = []
        self._background: set[asyncio.Task[None]] = set()
        limits = (concurrency, PENDING_MESSAGES, PENDING_BYTES)
        self._stats = stats
        self._dispatcher = Dispatcher(self, stats, self._limited, self._affinity_subject, *limits)
        self._subscriptions = Subscriptions(self._dispatcher, self._limited, *limits)
        self._jetstream_domain = (
            None if jetstream_domain is None else _subject_name("JetStream domain", jetstream_domain)
        )
        self._consumer = (
            DurableConsumer(name, self._dispatcher, ack_wait_s, self._jetstream_domain) if durable else None
        )
        interests = self._subscriptions.interests
        requests = RequestReceiver(self._dispatcher)
        if self._consumer is not None:
            interests.append(Interest(self._consumer.inbox, "", self._consumer.receiver, "answers"))
        else:
            subject = subjects.service(name, "esp", subjects.CLIENT_DATA)
            interests.append(Interest(subject, name, requests, "requests"))
        interests.append(
            Interest(subjects.replica(self.replica_id, "esp", subjects.CLIENT_DATA), "", requests, "requests")
        )
        self.publisher = Publisher(self.replica_id, self.publish)
        interests.append(
            Interest(f"{self.publisher.inbox}*", "", MessageReceiver(self.publisher.receive), "answers")
        )
        self._pushes = Pushes(name, self.replica_id, self._affinity_subject, self.publish)
        receipts = self._pushes.receipts
        interests.append(Interest(receipts.subject, "", MessageReceiver(receipts.receive), "answers"))
        self._connection: Connection
        self.use_servers(nats_urls or urls_of_environment())

    # ------------------------------------------------------------ what a service registers

    def handler(
        self, resource_path: str, *, respond: Respond = "requested"
    ) -> Callable[[AnyHandler], AnyHandler]:
        """Register the decorated function for a resource path, or a pattern of them (see routes.py).

        Requests without request ID are answered if `respond` is "always", and, if it is "errors", when they fail: MQTT
        acknowledges a message before its extension has seen it, so that a device would take it for handled.
        """

        def register(function: AnyHandler) -> AnyHandler:
            self._dispatcher.add(resource_path, function, respond)
            return function

        return register

    def batch(
        self, resource_path: str, *, respond: Respond = "requested"
    ) -> Callable[[AnyBatchHandler], AnyBatchHandler]:
        """Register the decorated function for lists of requests: all those of a turn of the event loop.

        It returns the result of each request, in order, or None if all have the result None; a result may be an
        ExtensionError. What it raises is the error of all of them. It may be async. A list has at most `concurrency`
        requests.
        """

        def register(function: AnyBatchHandler) -> AnyBatchHandler:
            self._dispatcher.add_batch(resource_path, function, respond)
            return function

        return register

    def on_error(self, function: Callable[[Request, int, str | None], None]) -> None:
        """Call this function with the request, status code and reason phrase of each response that is an error.

        Unlike middleware it costs other requests nothing.
        """
        self._dispatcher.observe(function)

    def middleware(self, function: AnyMiddleware, *, only_traced: bool = False) -> AnyMiddleware:
        """Put the decorated function around every handler; the first that is registered is the outermost.

        With `only_traced`, requests that the gateway does not trace go without it.
        """
        self._dispatcher.add_middleware(function, only_traced)
        return function

    def on_connectivity(self, function: AnyConnectivityHandler) -> AnyConnectivityHandler:
        """Call the decorated function for each 9/ELCE event of the gateway, on one of the replicas."""
        for connected in (True, False):

            async def receive(message: Msg, connected: bool = connected) -> None:
                await function(Connectivity.decode(message.data, connected=connected))

            self.subscribe(
                elce.event_subject(self._gateway_instance, connected=connected), receive, shared=True
            )
        return function

    def on_lifecycle(self, function: AnyLifecycleHandler) -> AnyLifecycleHandler:
        """Call the decorated function for each 9/ELCE lifecycle event of any service, on one of the replicas."""
        lifecycle.listen(self, function)
        return function

    def on_metadata(self, originator: str) -> Callable[[AnyMetadataHandler], AnyMetadataHandler]:
        """Call the decorated function for each 15/EME event of a service instance, on one of the replicas."""
        return lambda function: metadata_events.listen(self, originator, function)

    def on_time_series(
        self, transmitter: str, name: str = tstp.ANY
    ) -> Callable[[AnyTimeSeriesHandler], AnyTimeSeriesHandler]:
        """Call the decorated function for each 14/TSTP event of a service instance, on one of the replicas.

        `name` is that of the time series. The event is acknowledged when the function returns, and refused when it
        raises, with the status of an ExtensionError or 500.
        """
        return lambda function: time_series.listen(self, transmitter, name, function)

    def subscribe(
        self, subject: str, function: Subscriber, *, shared: bool = False, answers: bool = False
    ) -> None:
        """Call a function for each message on a subject; with `shared` on one of the replicas, else on each.

        Plain functions are called in order and must not block. Async ones run side by side, as handlers do.
        `answers` marks messages that handlers wait for: they are still received while the service drains.
        """
        self._subscriptions.add(subject, self.name if shared else "", function, answers=answers)

    def subscribe_batch(self, subject: str, function: BatchSubscriber, *, shared: bool = False) -> None:
        """Call an async function with lists of the messages on a subject, one list after the other.

        A list has the messages of a turn of the event loop, or those that came during the last call, at most 1024.
        """
        self._subscriptions.add_batch(subject, self.name if shared else "", function)

    def on_start(self, function: Callable[[], Awaitable[None]]) -> None:
        """Await this function when the service starts; repeat it while it raises StateUnavailable."""
        self._starters.append(function)

    def state(
        self,
        name: str,
        kind: type[T],
        *,
        ttl_s: float | None = None,
        changed: Callable[[tuple[str, ...], T], None] | None = None,
    ) -> State[T]:
        """Declare the state of this name, whose values have one type. It is made when the service starts.

        It is the JetStream bucket `<extension>-<name>`. With `ttl_s`, values are removed that many seconds after they
        were set. `changed` is called on each replica with the key and the value of each change, of any replica or
        command; changes while NATS is away are missed.
        """
        if name in self._states:
            raise ValueError(f"state {name!r} is declared twice")
        bucket_name = f"{self.name}-{_subject_name('state name', name)}"

        deliver_subject = f"_INBOX.{self.replica_id}-{bucket_name}"

        def bucket() -> Bucket:
            made = self._connection.bucket(bucket_name, ttl_s, self._state_replicas)
            if ttl_s is None and isinstance(made, JetStreamBucket):
                return WatchedBucket(
                    made,
                    self.publisher,
                    lambda: self.connects,
                    deliver_subject,
                    jetstream_domain=self._jetstream_domain,
                )
            return made

        state = self._states[name] = State(bucket, kind)
        self._subscriptions.interests.append(
            Interest(deliver_subject, "", MessageReceiver(state.receive), "answers")
        )
        if changed is not None:
            self.subscribe(changes_subject(bucket_name), state.listener(changed))
        return state

    def use_servers(self, nats_urls: Sequence[str]) -> None:
        """Connect to these NATS servers instead of those that were given first."""
        self._use(
            NatsConnection(
                self.name,
                self.replica_id,
                nats_urls,
                self._subscriptions.interests,
                self._dispatcher.hold,
                self._count_lost,
                self._consumer,
                self._jetstream_domain,
            )
        )

    def use_connection(self, make: Callable[[Sequence[Interest]], Connection]) -> None:
        """Replace the NATS connection by one that `make` returns for the subscriptions (see kaa_ext.testing)."""
        self._use(make(self._subscriptions.interests))

    def _use(self, connection: Connection) -> None:
        self._connection = connection
        self._dispatcher.connect(connection.send, connection.room)

    # ------------------------------------------------------------ what a service sends

    @overload
    async def push(
        self, endpoint_id: str, resource_path: str, payload: bytes, *,
        receipt: Literal[False] = False, **options: Unpack[PushOptions],
    ) -> None: ...  # fmt: skip

    @overload
    async def push(
        self, endpoint_id: str, resource_path: str, payload: bytes, *,
        receipt: Literal[True], **options: Unpack[PushOptions],
    ) -> PushReceipt: ...  # fmt: skip

    async def push(
        self, endpoint_id: str, resource_path: str, payload: bytes, *,
        receipt: bool = False, **options: Unpack[PushOptions],
    ) -> PushReceipt | None:  # fmt: skip
        """Send an endpoint a message that it did not request. Raise NotDelivered if NATS does not take it.

        Every replica of the gateway instance gets the message; the replica that the endpoint is connected to delivers
        it. With `gateway_replica_id` only that replica gets it. A push with the same `push_id` (a UUID) is delivered
        once to a connection, so a push can be repeated. After `timeout_s` it is not delivered any more. With `receipt`,
        the gateway reports what becomes of the push: see PushReceipt.
        """
        replica_id = options.get("gateway_replica_id")
        if replica_id is not None:
            name = _subject_name("gateway replica ID", replica_id)
            subject = subjects.replica(name, "esp", subjects.EXTENSION_DATA)
        else:
            subject = self.push_subject(options.get("gateway_instance"))
        expected = await self._pushes.send(
            subject, endpoint_id, resource_path, payload, receipt=receipt, options=options
        )
        self._stats["pushes"] += 1
        return expected

    def has_expired(self, fields: dict[str, Any]) -> bool:
        """Return whether a message of 3/ISM has expired. Such messages are counted, and logged now and then."""
        if not is_expired(fields):
            return False
        self._stats["expired"] += 1
        self._limited.warning(
            "expired",
            "a message came after its deadline and is dropped; is a clock wrong?",
            seconds=(now_ms() - fields["timestamp"]) / 1000,
        )
        return True

    def note_failure(self, error: Exception, subject: str) -> None:
        """Count a message on a subject that was not handled, and log that now and then."""
        self._stats["failed"] += 1
        self._limited.warning(
            f"{type(error).__name__} on {subject}", "message was not handled", exc_info=error
        )

    async def publish(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish any other message, such as an event. Raise NotDelivered if NATS does not take it."""
        await self._dispatcher.until_room()
        self._connection.send(subject, payload, reply, headers)

    @property
    def connects(self) -> int:
        """Return how often the extension has connected to NATS: messages may be missed between connections."""
        return self._connection.connects

    def jetstream(self) -> JetStreamContext:
        """Return JetStream, for a service's own streams. Raise NotDelivered while NATS is away."""
        return self._connection.jetstream()

    def push_subject(self, gateway_instance: str | None = None) -> str:
        """Return the subject on which every replica of a gateway instance (default: ours) takes ExtensionData."""
        if gateway_instance is None:
            name = self._gateway_instance
        else:
            name = _subject_name("gateway instance name", gateway_instance)
        return subjects.service(name, "esp", subjects.EXTENSION_DATA)

    @property
    def routes(self) -> Iterable[Route]:
        """Return the registered handlers, with the counters of their requests."""
        return self._dispatcher.routes

    @property
    def stats(self) -> dict[str, int]:
        """Return how often each event has happened until now, by the names in `STATS`."""
        return self._dispatcher.counts()

    @property
    def obstacles(self) -> list[str]:
        """Return the reasons why requests are not taken now; none if they are."""
        if self._dispatcher.draining:
            return [f"{self.name} drains"]
        if not self._has_started:
            return [f"{self.name} has not started"]
        return [] if self._connection.ready else [f"{self.name} is not connected to NATS"]

    @property
    def unconfirmed_bytes(self) -> int:
        """Return how many bytes were sent and not confirmed by NATS."""
        return self._connection.unconfirmed_bytes

    @property
    def running(self) -> int:
        """Return how many requests are in progress."""
        return self._dispatcher.running

    @property
    def waiting(self) -> int:
        """Return how many received messages wait for others to end."""
        return self._dispatcher.waiting + self._subscriptions.waiting

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Connect, make the states, call the functions of `on_start`, take requests. Waits for NATS."""
        try:
            await self._connection.open()
            for prepare in [*(state.open for state in self._states.values()), *self._starters]:
                await self._prepare(prepare)
            for state in self._states.values():
                self.spawn(state.watch())
            # Until then the gateway tells devices at once that nobody serves them.
            await self._connection.accept()
            self._has_started = True
        except BaseException:
            await self._connection.close()
            raise
        self._log.info("extension is ready", replica_id=self.replica_id)

    async def stop(self) -> None:
        """Drain: take nothing new, finish what was accepted, send its answers, disconnect."""
        draining = asyncio.create_task(self._drain())
        try:
            # Not a timeout that cancels: nats-py swallows a cancellation in some places.
            await asyncio.wait({draining}, timeout=self.drain_timeout_s)
            if not draining.done():
                abandoned = self._dispatcher.running + self.waiting
                self._stats["abandoned"] += abandoned
                self._log.error("drain took too long", after_s=self.drain_timeout_s, abandoned=abandoned)
        finally:
            for task in [draining, *self._dispatcher.tasks, *self._background]:
                task.cancel()
            await self._connection.close()
        self._log.info(
            "extension has stopped", **{name: count for name, count in self.stats.items() if count}
        )

    async def run(self, *, management: str | None = None) -> None:
        """Serve until SIGINT or SIGTERM, then drain. `management` is HOST:PORT for health and metrics."""
        await run(self, management=management)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside the handlers; `stop` cancels it."""
        task = asyncio.create_task(self._guarded(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - nothing awaits this task
            self._stats["failed"] += 1
            self._log.error("background work has failed", exc_info=error)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _prepare(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """Await something that needs JetStream, again and again until JetStream is there."""
        while True:
            try:
                return await prepare()
            except StateUnavailable as error:
                self._log.warning("JetStream is not available, trying again", error=error.reason)
                await asyncio.sleep(STATE_RETRY_S)

    async def _drain(self) -> None:
        self._dispatcher.draining = True
        await self._connection.drain()
        while self._dispatcher.tasks or self._dispatcher.running or self.waiting:
            await asyncio.wait(self._dispatcher.tasks or {asyncio.create_task(asyncio.sleep(0))})
        try:
            await self._connection.flush()
        except NotDelivered as error:
            self._log.error("the last answers may not have left", error=str(error))

    def _count_lost(self) -> None:
        self._stats["undelivered"] += 1
        self._limited.warning("undelivered", "NATS did not take a message")


def _subject_name(what: str, name: str) -> str:
    """Return the name if it may stand in a NATS subject; else raise ValueError."""
    if not subjects.NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r}: expected 1 to 128 letters, digits, dashes and underscores")
    return name
