"""Consumes an extension's requests from JetStream: what a gateway has acknowledged to devices is handled, or kept.

One durable pull consumer, named as the stream, is shared by the replicas of an extension. A message is acknowledged
when its handler is done, so it outlives this process; one that is not acknowledged comes again. Knows nothing of
4/ESP but the header that carries its reply-to.

Source: NATS documentation, "JetStream consumers"; the gateway's docs/guarantees.md.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import nats.errors
import structlog
from kaa_gateway.bus import subjects
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig

from kaa_ext.sdk.errors import NotDelivered

REPLY_TO_HEADER = "Kaa-Reply-To"
"""What the gateway puts the 4/ESP reply-to into."""

ACK_WAIT_S = 30.0
"""How long a handler may take before its message is given to somebody else as well."""
DELIVERIES_MAX = 10
"""How often a message whose handler fails is tried."""
RETRY_FIRST_S = 0.5
"""The pause before a failed message comes again; doubles."""
RETRY_MAX_S = 30.0
FETCH_MESSAGES = 256
"""Asked for at a time."""
FETCH_EXPIRES_S = 1.0
"""How long a request stands; `stop` waits for its end, so that nothing is sent to nobody."""
FETCH_GRACE_S = 2.0
ENDED = ("404", "408")
"""Statuses that end a request: nothing there, or its time is over."""
ACK_PENDING_MAX = 4096
"""Messages of all replicas that are handed out and not acknowledged."""
REBIND_WAIT_S = 0.5


class StreamGone(nats.errors.Error):
    """The server has no such consumer, or has ended it."""


class StoredMessage:
    """A message of the stream; `data`, `headers` and `reply` are those of the core NATS message that it was."""

    def __init__(self, message: Msg) -> None:
        self._message = message
        self.data = message.data
        self.headers = message.headers
        self.reply = (message.headers or {}).get(REPLY_TO_HEADER, "")

    @property
    def is_last_try(self) -> bool:
        """Whether it is not delivered again if its handler fails."""
        return bool(self._message.metadata.num_delivered >= DELIVERIES_MAX)

    async def done(self) -> None:
        """Let the stream forget it. If NATS does not hear of it, it comes again."""
        await self._tell(self._message.ack())

    async def retry(self) -> None:
        """Have it delivered again, a while later."""
        pause = min(RETRY_FIRST_S * 2.0 ** (self._message.metadata.num_delivered - 1), RETRY_MAX_S)
        await self._tell(self._message.nak(delay=pause))

    async def _tell(self, acknowledgement: Awaitable[None]) -> None:
        try:
            await acknowledgement
        except nats.errors.Error as error:
            raise NotDelivered(str(error) or type(error).__name__) from error


class DurableConsumer:
    """Fetches what an extension instance's stream holds and hands it to `receive`, in order, until it is stopped.

    What is not done with in `ack_wait_s` seconds is given to another replica, or comes again.
    """

    def __init__(
        self, extension: str, receive: Callable[[StoredMessage], Awaitable[None]], ack_wait_s: float
    ) -> None:
        self._name = subjects.stream(extension)
        self._subject = subjects.service(extension, "esp", subjects.CLIENT_DATA)
        self._receive = receive
        self._ack_wait_s = ack_wait_s
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._log: Any = structlog.get_logger(extension=extension, stream=self._name)

    def start(self, client: Client) -> None:
        """Begin to consume over a connection of nats-py, which may reconnect."""
        self._task = asyncio.create_task(self._run(client), name=f"consumer {self._name}")

    async def stop(self) -> None:
        """Fetch nothing more; returns when all that was fetched has been received."""
        self._stopping = True
        if self._task is not None:
            await asyncio.wait({self._task})

    async def abandon(self) -> None:
        """The connection has gone for good; another may `start` again."""
        while self._task is not None and not self._task.done():
            # Again and again, because nats-py swallows a cancellation in some places.
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1)

    async def _run(self, client: Client) -> None:
        said = ""
        while not self._stopping:
            try:
                await self._bind(client)
                inbox = client.new_inbox()
                subscription = await client.subscribe(inbox)
                said = ""
                try:
                    while not self._stopping:
                        await self._fetch(client, inbox, subscription)
                finally:
                    await subscription.unsubscribe()
            except nats.errors.Error as error:
                sentence = str(error) or type(error).__name__
                if sentence != said:
                    self._log.warning("stream cannot be read, trying again", error=sentence)
                    said = sentence
                await asyncio.sleep(REBIND_WAIT_S)

    async def _bind(self, client: Client) -> None:
        """Make the consumer, or make sure that it is there."""
        config = ConsumerConfig(
            name=self._name,
            durable_name=self._name,
            filter_subject=self._subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait_s,
            max_ack_pending=ACK_PENDING_MAX,
        )
        await client.jsm().add_consumer(self._name, config)

    async def _fetch(self, client: Client, inbox: str, subscription: Subscription) -> None:
        """Ask for some messages, and receive what comes until the server has ended the request.

        Not by nats-py's own `fetch`, which holds messages back until it has as many as it asked for.
        """
        request = {"batch": FETCH_MESSAGES, "expires": int(FETCH_EXPIRES_S * 1e9)}
        await client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._name}.{self._name}", msgspec.json.encode(request), inbox
        )
        for _ in range(FETCH_MESSAGES):
            try:
                message = await subscription.next_msg(FETCH_EXPIRES_S + FETCH_GRACE_S)
            except nats.errors.TimeoutError:
                return  # the request was lost with its connection
            status = (message.headers or {}).get("Status")
            if status is None:
                await self._receive(StoredMessage(message))
            elif status in ENDED:
                return
            else:
                raise StreamGone(f"{status} {(message.headers or {}).get('Description', '')}")
