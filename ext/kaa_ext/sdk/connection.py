"""The NATS connection of an extension: a nats-py client that is replaced when it closes.

nats-py reconnects by itself, but closes for good on some errors of the server, such as an authorization violation; then
a new client is opened. Nothing here knows 4/ESP.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import nats.errors
import structlog
from kaa_gateway.bus.flushing import flush
from kaa_gateway.bus.nats_client import NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from kaa_ext.sdk.buckets import Bucket, JetStreamBucket
from kaa_ext.sdk.durable import DurableConsumer
from kaa_ext.sdk.errors import NotDelivered, PayloadTooLarge, text_of
from kaa_ext.sdk.urls import masked

CONNECT_TIMEOUT_S = 5
RECONNECT_WAIT_S = 1
PING_INTERVAL_S = 20
JETSTREAM_TIMEOUT_S = 5
"""How long we wait for an answer of JetStream."""
PENDING_MESSAGES = 65_536
"""Messages of one subscription that wait for their callback; further ones are dropped."""
PENDING_BYTES = 64 * 1024 * 1024
OUTGOING_BYTES = 8 * 1024 * 1024
"""Bytes that wait to be sent while NATS is away or slow; more raises NotDelivered."""


class Interest(NamedTuple):
    """A subject to subscribe to, with the queue group ("" for none) and the callback.

    `answers` marks messages that handlers wait for: their subscription stays while the others are drained.
    """

    subject: str
    queue: str
    callback: Callable[[Msg], Awaitable[None]]
    answers: bool = False


class Connection(Protocol):
    """The connection that an extension uses: NATS, or the double of kaa_ext.testing."""

    @property
    def waiting(self) -> int:
        """Return how many received messages wait for their callback."""

    @property
    def connects(self) -> int:
        """Return how often this has connected; messages may have been missed between two connections."""

    def jetstream(self) -> JetStreamContext:
        """Return JetStream. Raise NotDelivered while it cannot be reached."""

    def bucket(self, name: str, ttl_s: float | None, replicas: int) -> Bucket:
        """Return a key-value bucket, which may not exist yet."""

    async def open(self) -> None:
        """Connect and subscribe."""

    async def publish(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a message, or keep it until it can be sent. Raise NotDelivered if neither is possible."""

    async def drain(self) -> None:
        """End all subscriptions except those to answers."""

    async def flush(self) -> None:
        """Return when all published messages have left."""

    async def close(self) -> None:
        """Disconnect."""


class NatsConnection:
    """A client of NATS. It subscribes to the `interests` when it is opened.

    `on_dropped` is called for each message that is dropped because the callbacks are too slow. `consumer` runs while
    the client is open.
    """

    def __init__(
        self,
        extension: str,
        replica_id: str,
        urls: Sequence[str],
        interests: Sequence[Interest],
        on_dropped: Callable[[], None],
        consumer: DurableConsumer | None = None,
    ) -> None:
        self._replica_id = replica_id
        self._urls = list(urls)
        self._interests = interests
        self._log: Any = structlog.get_logger(extension=extension, servers=",".join(map(masked, urls)))
        self._on_dropped = on_dropped
        self._consumer = consumer
        self._client: NatsClient | None = None
        self._clients = 0
        self._subscriptions: list[tuple[Interest, Subscription]] = []
        self._opened = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Return how many received messages wait for their callback."""
        return sum(subscription.pending_msgs for _, subscription in self._subscriptions)

    @property
    def connects(self) -> int:
        """Return how often this has connected; messages may have been missed between two connections."""
        return self._clients + (self._client.stats["reconnects"] if self._client is not None else 0)

    def jetstream(self) -> JetStreamContext:
        """Return JetStream on the current client. Raise NotDelivered while NATS is away."""
        if self._client is None or not self._client.is_connected:
            raise NotDelivered("not connected to NATS")
        return self._client.jetstream(timeout=JETSTREAM_TIMEOUT_S)

    def bucket(self, name: str, ttl_s: float | None, replicas: int) -> Bucket:
        """Return a key-value bucket of JetStream, which may not exist yet."""
        return JetStreamBucket(self.jetstream, name, ttl_s, replicas)

    async def open(self) -> None:
        """Connect and subscribe. Return when the server knows the subscriptions, however long that takes."""
        self._keeper = asyncio.create_task(self._keep_up())
        opened = asyncio.create_task(self._opened.wait())
        try:
            await asyncio.wait({self._keeper, opened}, return_when=asyncio.FIRST_COMPLETED)
            if self._keeper.done():
                self._keeper.result()
        finally:
            opened.cancel()

    async def publish(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Pass a message to nats-py, which keeps `OUTGOING_BYTES` while NATS is away. Else raise NotDelivered."""
        client = self._client
        if client is None:
            raise NotDelivered("not connected to NATS")
        try:
            await client.publish(subject, payload, reply, dict(headers) if headers else None)
        except nats.errors.MaxPayloadError as error:
            raise PayloadTooLarge(f"{len(payload)} bytes are more than NATS takes") from error
        except nats.errors.Error as error:
            raise NotDelivered(text_of(error)) from error

    async def drain(self) -> None:
        """End all subscriptions except those to answers, after the callbacks of all messages that NATS has sent."""
        if self._client is None or not self._client.is_connected:
            self._log.warning("NATS is away, nothing to drain")
            return
        try:
            if self._consumer is not None:
                await self._consumer.stop()
            await asyncio.gather(
                *(each.drain() for interest, each in self._subscriptions if not interest.answers)  # type: ignore[no-untyped-call]
            )
        except nats.errors.Error as error:
            self._log.warning("NATS went away during the drain", error=text_of(error))

    async def flush(self) -> None:
        """Return when the server has taken all published messages. Raise NotDelivered if it does not answer."""
        if self._client is None or not self._client.is_connected:
            raise NotDelivered("not connected to NATS")
        try:
            await flush(self._client)
        except nats.errors.Error as error:
            raise NotDelivered(text_of(error)) from error

    async def close(self) -> None:
        """Disconnect. Messages that were not flushed may be lost."""
        while self._keeper is not None and not self._keeper.done():
            # More than once, because nats-py swallows a cancellation in some places.
            self._keeper.cancel()
            await asyncio.wait({self._keeper}, timeout=RECONNECT_WAIT_S)

    async def _keep_up(self) -> None:
        while True:
            closed = asyncio.Event()
            client = NatsClient()
            try:
                await self._connect(client, closed)
                self._client = client
                self._clients += 1
                self._opened.set()
                if self._consumer is not None:
                    self._consumer.start(client)
                await closed.wait()
                self._log.error("NATS closed the connection, opening a new one")
            except nats.errors.Error as error:
                self._log.warning("NATS connection failed, trying again", error=text_of(error))
            finally:
                self._clients += client.stats["reconnects"]
                self._client = None
                self._opened.clear()
                if self._consumer is not None:
                    await self._consumer.abandon()
                with suppress(nats.errors.Error, OSError):
                    await client.close()
            await asyncio.sleep(RECONNECT_WAIT_S)

    async def _connect(self, client: NatsClient, closed: asyncio.Event) -> None:
        async def on_closed() -> None:
            closed.set()

        async def on_disconnected() -> None:
            if not client.is_closed:
                self._log.warning("NATS connection lost, reconnecting")

        async def on_reconnected() -> None:
            self._log.info("NATS connection is back")

        async def on_error(error: Exception) -> None:
            if isinstance(error, nats.errors.SlowConsumerError):
                self._on_dropped()
            elif isinstance(error, nats.errors.UnexpectedEOF):
                pass  # on_disconnected logs it
            elif client.is_connected:
                self._log.error("NATS error", error=text_of(error))
            else:
                self._log.warning("NATS unreachable, trying again", error=text_of(error))

        await client.connect(
            self._urls,
            name=self._replica_id,
            error_cb=on_error,
            disconnected_cb=on_disconnected,
            reconnected_cb=on_reconnected,
            closed_cb=on_closed,
            connect_timeout=CONNECT_TIMEOUT_S,
            reconnect_time_wait=RECONNECT_WAIT_S,
            max_reconnect_attempts=-1,
            ping_interval=PING_INTERVAL_S,
            pending_size=OUTGOING_BYTES,
        )
        self._subscriptions = [
            (
                interest,
                await client.subscribe(
                    interest.subject,
                    interest.queue,
                    interest.callback,
                    pending_msgs_limit=PENDING_MESSAGES,
                    pending_bytes_limit=PENDING_BYTES,
                ),
            )
            for interest in self._interests
        ]
        await flush(client)
        self._log.debug(
            "NATS connected", server=client.connected_url and masked(client.connected_url.geturl())
        )
