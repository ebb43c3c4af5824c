"""Consumes the requests of a durable extension from its JetStream stream.

The replicas of an extension share one durable pull consumer, which has the name of the stream. A message is
acknowledged when its handler is done; one that is not acknowledged is delivered again, also after the death of this
process. Of 4/ESP this module knows only the header that carries the reply-to.

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

from kaa_ext.sdk.errors import NotDelivered, text_of

ACK_WAIT_S = 30.0
"""How long a handler may take before its message is delivered again."""
DELIVERIES_MAX = 10
"""How often a message is delivered while its handler fails."""
RETRY_FIRST_S = 0.5
"""The pause before a failed message is delivered again; it doubles each time."""
RETRY_MAX_S = 30.0
FETCH_MESSAGES = 256
"""Messages of one fetch request."""
FETCH_EXPIRES_S = 1.0
"""How long a fetch request lasts. `stop` waits for its end, so that no message is sent to a closed inbox."""
FETCH_GRACE_S = 2.0
ENDED = ("404", "408")
"""Statuses that end a fetch request: no messages, or its time is over."""
ACK_PENDING_MAX = 4096
"""Messages of all replicas that are delivered and not acknowledged."""
REBIND_WAIT_S = 0.5


class ConsumerGone(nats.errors.Error):
    """The server has no such consumer, or has ended it."""


class StoredMessage:
    """A message of the stream, with the `data`, `headers` and `reply` of the ClientData that the gateway published."""

    def __init__(self, message: Msg) -> None:
        self._message = message
        self.data = message.data
        self.headers = message.headers
        self.reply = (message.headers or {}).get(subjects.REPLY_TO_HEADER, "")

    @property
    def is_last_try(self) -> bool:
        """Return whether this is the last delivery, even if the handler fails."""
        return bool(self._message.metadata.num_delivered >= DELIVERIES_MAX)

    async def done(self) -> None:
        """Acknowledge the message. If NATS does not receive that, the message is delivered again."""
        await self._acknowledge(self._message.ack())

    async def retry(self) -> None:
        """Have the message delivered again after a pause."""
        pause = min(RETRY_FIRST_S * 2.0 ** (self._message.metadata.num_delivered - 1), RETRY_MAX_S)
        await self._acknowledge(self._message.nak(delay=pause))

    async def _acknowledge(self, acknowledgement: Awaitable[None]) -> None:
        try:
            await acknowledgement
        except nats.errors.Error as error:
            raise NotDelivered(text_of(error)) from error


class DurableConsumer:
    """Fetches the messages of an extension instance's stream and passes them to `receive` in order.

    A message that is not acknowledged within `ack_wait_s` seconds is delivered again, to this or another replica.
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
        """Begin to consume over a nats-py client, which may reconnect."""
        self._task = asyncio.create_task(self._run(client), name=f"consumer {self._name}")

    async def stop(self) -> None:
        """Stop fetching. Return when all fetched messages have been passed on."""
        self._stopping = True
        if self._task is not None:
            await asyncio.wait({self._task})

    async def abandon(self) -> None:
        """Stop at once, because the client is closed. `start` may be called with another."""
        while self._task is not None and not self._task.done():
            # More than once, because nats-py swallows a cancellation in some places.
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1)

    async def _run(self, client: Client) -> None:
        logged = ""
        while not self._stopping:
            try:
                await self._bind(client)
                inbox = client.new_inbox()
                subscription = await client.subscribe(inbox)
                logged = ""
                try:
                    while not self._stopping:
                        await self._fetch(client, inbox, subscription)
                finally:
                    await subscription.unsubscribe()
            except nats.errors.Error as error:
                sentence = text_of(error)
                if sentence != logged:
                    self._log.warning("stream cannot be read, trying again", error=sentence)
                    logged = sentence
                await asyncio.sleep(REBIND_WAIT_S)

    async def _bind(self, client: Client) -> None:
        """Make the consumer if it does not exist."""
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
        """Request messages, and pass them on until the server ends the request.

        nats-py's own `fetch` would hold messages back until it has as many as it requested.
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
                raise ConsumerGone(f"{status} {(message.headers or {}).get('Description', '')}")
