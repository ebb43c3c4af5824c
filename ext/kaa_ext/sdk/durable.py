"""Consumes the requests of a durable extension from its JetStream stream.

The replicas of an extension share one durable pull consumer, which has the name of the stream. A message is
acknowledged when its handler is done; one that is not acknowledged is delivered again, also after the death of this
process. Messages and acknowledgements go over the native link, the acknowledgements of a turn of the event loop in one
block; nats-py makes the consumer.

Source: NATS documentation, "JetStream consumers"; the gateway's docs/guarantees.md.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias
from uuid import uuid4

import msgspec
import structlog
from kaa_gateway.bus import subjects
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from kaa_ext.sdk.dispatcher import Dispatcher
from kaa_ext.sdk.errors import text_of
from kaa_ext.sdk.receivers import StoredReceiver

Send: TypeAlias = Callable[[str, bytes, str], None]

ACK_WAIT_S = 30.0
"""How long a handler may take before its message is delivered again."""
DELIVERIES_MAX = 10
"""How often a message is delivered while its handler fails."""
RETRY_FIRST_S = 0.5
"""The pause before a failed message is delivered again; it doubles each time."""
RETRY_MAX_S = 30.0
FETCH_MESSAGES = 512
"""Messages of one pull request."""
FETCH_AGAIN = 256
"""The next pull request is sent when no more than so many messages of the last are still to come."""
FETCH_EXPIRES_S = 1.0
"""How long a pull request lasts. `stop` waits for its end, so that no message is sent to a closed inbox."""
FETCH_GRACE_S = 2.0
BUSY_MESSAGES = 512
"""No more is fetched while so many requests are in progress or wait."""
BUSY_POLL_S = 0.002
ENDED = ("404", "408")
"""Statuses that end a pull request: no messages, or its time is over."""
ACK_PENDING_MAX = 4096
"""Messages of all replicas that are delivered and not acknowledged."""
REBIND_WAIT_S = 0.5
ACKNOWLEDGED = b"+ACK"
DELIVERY_TOKEN = 4
"""The place of the number of deliveries in `$JS.ACK.<stream>.<consumer>.<deliveries>...`, from its start."""
DOMAIN_TOKENS = 11
"""Tokens from which on an acknowledgement subject has two more, domain and account, behind `$JS.ACK`."""


class StoredMessage:
    """The delivery of a message of the stream; `subject` is that of its acknowledgement."""

    __slots__ = ("_send", "_subject")

    def __init__(self, subject: str, send: Send) -> None:
        self._subject = subject
        self._send = send

    @property
    def deliveries(self) -> int:
        """Return how often the message was delivered, this time included."""
        tokens = self._subject.split(".")
        return int(tokens[DELIVERY_TOKEN + (2 if len(tokens) >= DOMAIN_TOKENS else 0)])

    @property
    def is_last_try(self) -> bool:
        """Return whether this is the last delivery, even if the handler fails."""
        return self.deliveries >= DELIVERIES_MAX

    def done(self) -> None:
        """Acknowledge the message. Raise NotDelivered if NATS does not take that."""
        self._send(self._subject, ACKNOWLEDGED, "")

    def retry(self) -> None:
        """Have the message delivered again after a pause. Raise NotDelivered if NATS does not take that."""
        pause = min(RETRY_FIRST_S * 2 ** (self.deliveries - 1), RETRY_MAX_S)
        self._send(self._subject, b"-NAK " + msgspec.json.encode({"delay": int(pause * 1e9)}), "")


class DurableConsumer:
    """Pulls the messages of an extension instance's stream and passes them to the dispatcher in order.

    A message that is not acknowledged within `ack_wait_s` seconds is delivered again, to this or another replica.
    Messages come on `inbox`, which the connection subscribes to for `receiver`.
    """

    def __init__(
        self, extension: str, dispatcher: Dispatcher, ack_wait_s: float, jetstream_domain: str | None = None
    ) -> None:
        self._name = subjects.stream(extension)
        self._subject = subjects.service(extension, "esp", subjects.CLIENT_DATA)
        self._dispatcher = dispatcher
        self._ack_wait_s = ack_wait_s
        self._domain = jetstream_domain
        self.inbox = f"_INBOX.{uuid4().hex}"
        self.receiver = StoredReceiver(
            dispatcher, self._stored, self._on_status, self._on_low, low=FETCH_AGAIN
        )
        self._send: Send | None = None
        self._stopping = False
        self._gone = ""
        self._low = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._log: Any = structlog.get_logger(extension=extension, stream=self._name)

    def start(self, client: Client, send: Send) -> None:
        """Begin to consume; the nats-py client may reconnect."""
        self._send = send
        self._task = asyncio.create_task(self._run(client, send), name=f"consumer {self._name}")

    async def stop(self) -> None:
        """Stop pulling. Return when all messages that were pulled have been passed on."""
        self._stopping = True
        self._low.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def abandon(self) -> None:
        """Stop at once, because the client is closed. `start` may be called with another."""
        while self._task is not None and not self._task.done():
            # More than once, because nats-py swallows a cancellation in some places.
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1)

    def reconnected(self) -> None:
        """Pull again, because the server has forgotten the pull requests of the old connection."""
        self.receiver.expected = 0
        self._low.set()

    async def _run(self, client: Client, send: Send) -> None:
        logged = ""
        while not self._stopping:
            try:
                await self._bind(client)
                self._gone = logged = ""
                self.receiver.expected = 0
                await self._pull(send)
                sentence = self._gone
            except Exception as error:  # noqa: BLE001 - after any error, the stream must still be read
                sentence = text_of(error)
            if sentence != logged and not self._stopping:
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
        await client.jetstream(domain=self._domain).add_consumer(self._name, config)

    async def _pull(self, send: Send) -> None:
        """Keep pulling until the consumer is gone; when stopping, until the last pull request has ended."""
        request = msgspec.json.encode({"batch": FETCH_MESSAGES, "expires": int(FETCH_EXPIRES_S * 1e9)})
        subject = subjects.jetstream(self._domain, f"CONSUMER.MSG.NEXT.{self._name}.{self._name}")
        dispatcher, receiver = self._dispatcher, self.receiver
        while not self._gone and not (self._stopping and not receiver.expected):
            self._low.clear()
            if not self._stopping and receiver.expected <= FETCH_AGAIN:
                while dispatcher.running + dispatcher.waiting >= BUSY_MESSAGES and not self._stopping:
                    await asyncio.sleep(BUSY_POLL_S)
                send(subject, request, self.inbox)
                receiver.expected += FETCH_MESSAGES
            before = receiver.expected
            with suppress(TimeoutError):
                async with asyncio.timeout(FETCH_EXPIRES_S + FETCH_GRACE_S):
                    await self._low.wait()
            if receiver.expected == before and not self._low.is_set():
                receiver.expected = 0  # the pull request was lost with its connection

    def _stored(self, subject: str) -> StoredMessage:
        assert self._send is not None
        return StoredMessage(subject, self._send)

    def _on_low(self) -> None:
        self._low.set()

    def _on_status(self, status: str, description: str, missing: int) -> None:
        """Handle the end of a pull request, `missing` of whose messages will not come."""
        if status in ENDED:
            self.receiver.expect_less(missing)
        else:
            self._gone = f"{status} {description}"
        self._low.set()
