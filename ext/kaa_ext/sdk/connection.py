"""The NATS connections of an extension: the native link for all messages, and a nats-py client for JetStream.

nats-py reconnects by itself, but closes for good on some errors of the server, such as an authorization violation; then
a new client is opened. Nothing here knows 4/ESP.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, Protocol

import nats.errors
import structlog
from kaa_gateway.bus.connector import Connector, TlsOptions
from kaa_gateway.bus.link import Link
from kaa_gateway.bus.nats_client import NatsClient
from nats.js import JetStreamContext

from kaa_ext.sdk.buckets import Bucket, JetStreamBucket
from kaa_ext.sdk.durable import DurableConsumer
from kaa_ext.sdk.errors import NotDelivered, text_of
from kaa_ext.sdk.outgoing import Outgoing
from kaa_ext.sdk.receivers import MessageReceiver, RequestReceiver, StoredReceiver
from kaa_ext.sdk.timeouts import CONNECT_TIMEOUT_S, JETSTREAM_TIMEOUT_S
from kaa_ext.sdk.urls import masked

RECONNECT_WAIT_S = 1
CLIENT_RECONNECT_WAIT_S = 0.2
"""The client follows the link, which is back first."""
PING_INTERVAL_S = 20
OUTGOING_BYTES = 8 * 1024 * 1024
"""Bytes that NATS has not confirmed, because it is away or slow; more raises NotDelivered. From the half on we wait."""
CHECK_INTERVAL_S = 1.0
FLUSH_TIMEOUT_S = 10.0
POLL_S = 0.005


class Interest(NamedTuple):
    """A subject to subscribe to, with the queue group ("" for none) and what takes the messages.

    `requests` are subscribed to last, when the extension has started; `answers`, for which handlers wait, stay while
    the others are drained.
    """

    subject: str
    queue: str
    receiver: MessageReceiver | RequestReceiver | StoredReceiver
    kind: Literal["requests", "messages", "answers"] = "messages"


class Connection(Protocol):
    """The connection that an extension uses: NATS, or the double of kaa_ext.testing."""

    @property
    def connects(self) -> int:
        """Return how often this has connected; messages may have been missed between two connections."""

    @property
    def ready(self) -> bool:
        """Return whether messages leave and arrive now."""

    @property
    def unconfirmed_bytes(self) -> int:
        """Return how many bytes were sent and are not confirmed."""

    def jetstream(self) -> JetStreamContext:
        """Return JetStream. Raise NotDelivered while it cannot be reached."""

    def bucket(self, name: str, ttl_s: float | None, replicas: int) -> Bucket:
        """Return a key-value bucket, which may not exist yet."""

    async def open(self) -> None:
        """Connect, and subscribe to all but requests."""

    async def accept(self) -> None:
        """Subscribe to requests."""

    def send(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a message, or keep it until it can be sent. Raise NotDelivered if neither is possible."""

    async def room(self) -> None:
        """Wait while NATS takes messages more slowly than we send them. Return at once if it is away."""

    async def drain(self) -> None:
        """End all subscriptions except those to answers."""

    async def flush(self) -> None:
        """Return when all published messages have left."""

    async def close(self) -> None:
        """Disconnect."""


class NatsConnection:
    """The link and a client of nats-py. It subscribes to the `interests`.

    `on_full` is called when NATS takes messages too slowly, and when it does no more; `on_lost` for each message that
    NATS does not take although it was sent. `consumer` runs while the client is open.
    """

    def __init__(
        self,
        extension: str,
        replica_id: str,
        urls: Sequence[str],
        interests: Sequence[Interest],
        on_full: Callable[[bool], None],
        on_lost: Callable[[], None],
        consumer: DurableConsumer | None = None,
        jetstream_domain: str | None = None,
    ) -> None:
        self._replica_id = replica_id
        self._urls = list(urls)
        self._interests = interests
        self._log: Any = structlog.get_logger(extension=extension, servers=",".join(map(masked, urls)))
        self._on_full = on_full
        self._consumer = consumer
        self._jetstream_domain = jetstream_domain
        self._outgoing = Outgoing(OUTGOING_BYTES, self._full, on_lost, self._connected)
        self.send = self._outgoing.send
        self._link: Link | None = None
        self._connector: Connector | None = None
        self._sids: list[int] = []
        self._accepting = False
        self._subscribed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._client: NatsClient | None = None
        self._opened = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def connects(self) -> int:
        """Return how often this has connected; messages may have been missed between two connections."""
        return self._link.connects if self._link is not None else 0

    @property
    def ready(self) -> bool:
        """Return whether the link is connected."""
        return self._link is not None and self._link.ready

    @property
    def unconfirmed_bytes(self) -> int:
        """Return how many bytes wait for NATS to confirm them."""
        return self._link.backlog if self._link is not None else 0

    def jetstream(self) -> JetStreamContext:
        """Return JetStream on the current client. Raise NotDelivered while NATS is away."""
        if self._client is None or not self._client.is_connected:
            raise NotDelivered("not connected to NATS")
        return self._client.jetstream(domain=self._jetstream_domain, timeout=JETSTREAM_TIMEOUT_S)

    def bucket(self, name: str, ttl_s: float | None, replicas: int) -> Bucket:
        """Return a key-value bucket of JetStream, which may not exist yet."""
        return JetStreamBucket(self.jetstream, name, ttl_s, replicas, self._jetstream_domain)

    async def open(self) -> None:
        """Connect, and subscribe to all but requests. Return when the server knows that, however long it takes."""
        link = Link(asyncio.get_running_loop(), (), OUTGOING_BYTES // 2, PING_INTERVAL_S, self._on_link_lost)
        self._sids = []
        self._subscribe(link, "messages", "answers")
        self._outgoing.use(link)
        self._link = link
        self._connector = Connector(
            link, tuple(self._urls), name=self._replica_id, tls=TlsOptions(), credentials=None, echo=True
        )
        self._connector.start()
        keeper = asyncio.create_task(self._keep_client())
        self._tasks = [keeper, asyncio.create_task(self._check(link))]
        opened = asyncio.create_task(self._opened.wait())
        try:
            await asyncio.wait({keeper, opened}, return_when=asyncio.FIRST_COMPLETED)
            if keeper.done():
                keeper.result()
        finally:
            opened.cancel()

    async def accept(self) -> None:
        """Subscribe to requests. Return when the server knows that."""
        link = self._link
        assert link is not None
        while not link.ready:
            await asyncio.sleep(POLL_S)
        self._subscribe(link, "requests")
        if self._consumer is not None and self._client is not None:
            self._consumer.start(self._client, self.send)
        self._accepting = True
        with suppress(NotDelivered):  # then the next connection begins with the subscriptions
            await self.flush()

    def _subscribe(self, link: Link, *kinds: str) -> None:
        for interest in self._interests:
            if interest.kind in kinds:
                sid = link.subscribe(interest.subject, interest.receiver, interest.queue or None)
                if interest.kind != "answers":
                    self._sids.append(sid)

    async def room(self) -> None:
        """Wait while the link has a backlog. Return at once if NATS is away."""
        while self._link is not None and self._link.ready and self._link.full:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_INTERVAL_S):
                    await self._has_room.wait()

    async def drain(self) -> None:
        """End all subscriptions except those to answers, when all messages that NATS has sent are received."""
        link = self._link
        if link is None or not link.ready:
            self._log.warning("NATS is away, nothing to drain")
            return
        if self._consumer is not None:
            await self._consumer.stop()
        for sid in self._sids:
            link.unsubscribe(sid)
        try:
            await self.flush()
        except NotDelivered as error:
            self._log.warning("NATS went away during the drain", error=str(error))

    async def flush(self) -> None:
        """Return when the server has taken all published messages. Raise NotDelivered if it does not answer."""
        link = self._link
        if link is None or not link.ready:
            raise NotDelivered("not connected to NATS")
        drained = asyncio.create_task(link.drain())
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                while not drained.done():
                    if not link.ready:
                        raise NotDelivered("the connection to NATS was lost")
                    await asyncio.wait({drained}, timeout=POLL_S)
        except TimeoutError as error:
            raise NotDelivered("NATS does not answer") from error
        finally:
            drained.cancel()

    async def close(self) -> None:
        """Disconnect. Messages that were not flushed may be lost."""
        for task in self._tasks:
            while not task.done():
                # More than once, because nats-py swallows a cancellation in some places.
                task.cancel()
                await asyncio.wait({task}, timeout=RECONNECT_WAIT_S)
        self._outgoing.use(None)
        if self._connector is not None:
            await self._connector.stop()

    # ------------------------------------------------------------ the link

    def _connected(self) -> None:
        self._subscribed.set()
        if self._consumer is not None:
            self._consumer.reconnected()

    def _on_link_lost(self, sentence: str) -> None:
        assert self._connector is not None
        self._connector.on_lost(sentence)

    def _full(self, full: bool) -> None:
        if full:
            self._has_room.clear()
        else:
            self._has_room.set()
        self._on_full(full)

    async def _check(self, link: Link) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            link.check()

    # ------------------------------------------------------------ the client

    async def _keep_client(self) -> None:
        await self._subscribed.wait()
        while True:
            closed = asyncio.Event()
            client = NatsClient()
            try:
                await self._connect_client(client, closed)
                self._client = client
                self._opened.set()
                if self._consumer is not None and self._accepting:
                    self._consumer.start(client, self.send)
                await closed.wait()
                self._log.error("NATS closed the connection to JetStream, opening a new one")
            except (nats.errors.Error, OSError) as error:
                self._log.warning("NATS connection to JetStream failed, trying again", error=text_of(error))
            finally:
                self._client = None
                self._opened.clear()
                if self._consumer is not None:
                    await self._consumer.abandon()
                with suppress(nats.errors.Error, OSError):
                    await client.close()
            await asyncio.sleep(RECONNECT_WAIT_S)

    async def _connect_client(self, client: NatsClient, closed: asyncio.Event) -> None:
        async def on_closed() -> None:
            closed.set()

        async def on_error(error: Exception) -> None:
            # The connector tells of servers that cannot be reached.
            if client.is_connected and not isinstance(error, nats.errors.UnexpectedEOF):
                self._log.error("NATS error", error=text_of(error))

        await client.connect(
            self._urls,
            name=self._replica_id,
            error_cb=on_error,
            closed_cb=on_closed,
            connect_timeout=CONNECT_TIMEOUT_S,
            reconnect_time_wait=CLIENT_RECONNECT_WAIT_S,  # type: ignore[arg-type]
            max_reconnect_attempts=-1,
            ping_interval=PING_INTERVAL_S,
        )
        self._log.debug(
            "NATS connected", server=client.connected_url and masked(client.connected_url.geturl())
        )
