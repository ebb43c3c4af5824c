"""The control connection: nats-py, for everything that is not per message (events, identity, configuration).

It keeps itself connected for as long as it runs; the link does not depend on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

import nats.errors
import structlog

from kaa_gateway.bus.clock_skew import ClockSkew
from kaa_gateway.bus.codes import NO_RESPONDERS
from kaa_gateway.bus.flushing import flush
from kaa_gateway.bus.messages import EVENT_SIZE_MAX
from kaa_gateway.bus.nats_client import NatsClient
from kaa_gateway.bus.servers import Server, ServerList
from kaa_gateway.errors import BusError

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from kaa_gateway.bus.connector import TlsOptions
    from kaa_gateway.bus.credentials import Credentials

log = structlog.get_logger("gateway.bus")

CONNECT_TIMEOUT = 5
"""Seconds for one attempt."""
RECONNECT_WAIT = 1
"""Seconds between attempts, at most. The pauses are jittered, so that a fleet does not return at once."""
OUTBOX_MAX = 10_000
"""Events that wait for the connection; more are dropped, and counted."""
OUTBOX_SIZE_MAX = 32 * 1024 * 1024
"""Their bytes; the same."""
CONNECTION_POLL = 0.1
"""Seconds between looks whether the connection is there again."""
REPORTED_MAX = 16
"""Kinds of failures that are logged, one line each, until there is a connection."""
DRAIN_TIMEOUT = 2.0
"""Seconds that the last events have at the end, and that closing a connection has."""


class Subscription(NamedTuple):
    """A subject that is subscribed anew on each connection."""

    subject: str
    handle: Callable[[str, bytes], None]
    unanswered: Callable[[], None] | None


class Control:
    """A nats-py client behind an outbox, so that publishing never waits."""

    def __init__(
        self,
        urls: tuple[str, ...],
        *,
        name: str,
        tls: TlsOptions,
        credentials: Credentials | None,
        jetstream_domain: str | None = None,
    ) -> None:
        self.jetstream_domain = jetstream_domain
        """Of streams and buckets; None for that of the server."""
        self._servers = ServerList(urls)
        self._name = name
        self._tls = tls
        self._credentials = credentials
        self._client = NatsClient()
        self._closed = asyncio.Event()
        self._outbox: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(OUTBOX_MAX)
        self._outbox_size = 0
        self._task: asyncio.Task[None] | None = None
        self._subscriptions: list[Subscription] = []
        self._answers: list[tuple[str, Callable[[bytes], bytes]]] = []
        self._when_reconnected: list[Callable[[], None]] = []
        self._was_connected = False
        self.clock_skew = ClockSkew()
        """Of the services that send to the control connection."""
        self.dropped = 0
        self._reported: set[str] = set()
        """What was logged since there was a connection."""
        self.last_error = ""
        """Why there is no connection; "" while there is one."""

    def subscribe(
        self,
        subject: str,
        handle: Callable[[str, bytes], None],
        *,
        unanswered: Callable[[], None] | None = None,
    ) -> None:
        """Call `handle` with subject and datum of each message on `subject`, from `start` on.

        If this is the reply subject of requests, `unanswered` is called for each of them that nobody takes.
        """
        self._subscriptions.append(Subscription(subject, handle, unanswered))

    def answer(self, subject: str, answer: Callable[[bytes], bytes]) -> None:
        """Answer each request on `subject` with what `answer` returns for its datum, from `start` on."""
        self._answers.append((subject, answer))

    async def gather(self, subject: str, payload: bytes, wait: float, most: int) -> list[bytes]:
        """Return the answers to a request that come within `wait` seconds, `most` of them. BusError if NATS is away."""
        if not self._client.is_connected:
            raise BusError("nats_away", "not connected to NATS")
        inbox = self._client.new_inbox()
        try:
            subscription = await self._client.subscribe(inbox)
            await self._client.publish(subject, payload, inbox)
            found: list[bytes] = []
            with contextlib.suppress(nats.errors.TimeoutError):
                async with asyncio.timeout(wait):
                    while len(found) < most:
                        message = await subscription.next_msg(wait)
                        if message.data:  # else nobody is subscribed
                            found.append(message.data)
        except TimeoutError:
            pass
        except nats.errors.Error as error:
            raise BusError("nats_request", f"{subject}: {str(error) or type(error).__name__}") from error
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()
        return found

    def when_reconnected(self, act: Callable[[], None]) -> None:
        """Call `act` after each reconnect: events may have been missed."""
        self._when_reconnected.append(act)

    @property
    def event_size_max(self) -> int:
        """Bytes of an event that NATS surely takes."""
        return min(EVENT_SIZE_MAX, self._client.max_payload * 3 // 4)

    @property
    def connected(self) -> bool:
        """Whether NATS can be reached now."""
        return self._client.is_connected

    async def send(self, subject: str, datum: bytes, reply: str) -> None:
        """Publish a request now. BusError if NATS cannot be reached."""
        if not self._client.is_connected:
            raise BusError("nats_away")
        try:
            await self._client.publish(subject, datum, reply)
        except nats.errors.Error as error:
            raise BusError("nats_refused", str(error) or type(error).__name__) from error

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="nats-control")

    async def publish(self, subject: str, datum: bytes, headers: dict[str, str] | None = None) -> None:
        """Publish now. BusError if NATS cannot be reached."""
        if not self._client.is_connected:
            raise BusError("nats_away")
        try:
            await self._client.publish(subject, datum, headers=headers)
        except nats.errors.Error as error:
            raise BusError("nats_refused", str(error) or type(error).__name__) from error

    async def request(
        self, subject: str, payload: bytes, timeout: float, headers: dict[str, str] | None = None
    ) -> bytes:
        """Return the answer to a request. BusError if NATS is away, or there is none within `timeout` seconds."""
        if not self._client.is_connected:
            raise BusError("nats_away", "not connected to NATS")
        try:
            return (await self._client.request(subject, payload, timeout, headers=headers)).data
        except nats.errors.NoRespondersError as error:
            raise BusError("nats_no_responders", f"nobody answers on {subject}") from error
        except nats.errors.Error as error:
            raise BusError("nats_request", f"{subject}: {str(error) or type(error).__name__}") from error

    def waiting(self) -> int:
        """Return the number of events that wait for the connection."""
        return self._outbox.qsize()

    def publish_event(self, subject: str, datum: bytes) -> None:
        """Publish when connected; drops and counts the event if too many wait already."""
        if self._outbox.full() or self._outbox_size + len(datum) > OUTBOX_SIZE_MAX:
            self.dropped += 1
            return
        self._outbox.put_nowait((subject, datum))
        self._outbox_size += len(datum)

    async def stop(self) -> None:
        """Publish what waits if NATS is there, then close."""
        if self._client.is_connected:
            with contextlib.suppress(TimeoutError, nats.errors.Error):
                async with asyncio.timeout(DRAIN_TIMEOUT):
                    await self._outbox.join()
                    await flush(self._client)
        while self._task is not None and not self._task.done():
            # Again and again, because nats-py swallows a cancellation in some places.
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=RECONNECT_WAIT)

    async def _run(self) -> None:
        publishing = asyncio.create_task(self._publish(), name="nats-control-events")
        try:
            while True:
                for server in self._servers.all():
                    await self._use(server)
                    await asyncio.sleep(RECONNECT_WAIT * random.uniform(0.2, 1.0))
        finally:
            publishing.cancel()

    async def _use(self, server: Server) -> None:
        """Connect to a server, and return when the connection has ended.

        nats-py does not reconnect by itself: its attempts would all have the certificate of the first.
        """
        try:
            await self._connect(server)
            while self._client.is_connected and not self._closed.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECONNECT_WAIT):
                        await self._closed.wait()
            log.warning("NATS control connection lost", server=str(server))
        except nats.errors.NoServersError:
            pass  # the reason was reported
        except Exception as error:  # noqa: BLE001 - nats-py raises many kinds, and all mean: try again
            self._report(error)
        finally:
            await self._close()
            self._servers.discover(server, self._client.connect_urls)

    def _report(self, error: Exception) -> None:
        """Log each new kind of failure once, not each attempt."""
        sentence = str(error) or type(error).__name__
        if sentence not in self._reported and len(self._reported) < REPORTED_MAX:
            log.error("cannot make the NATS control connection, trying on", error=sentence)
            self._reported.add(sentence)
        self.last_error = sentence

    async def _connect(self, server: Server) -> None:
        client = self._client = NatsClient(self._tls.context)
        self._closed.clear()
        await client.connect(
            server.url,
            name=self._name,
            connect_timeout=CONNECT_TIMEOUT,
            allow_reconnect=False,
            max_reconnect_attempts=1,  # none would be without end
            reconnect_time_wait=0,
            signature_cb=self._sign if self._credentials else None,
            user_jwt_cb=self._user_jwt if self._credentials else None,
            tls_hostname=server.certificate_name,
            tls_handshake_first=self._tls.handshake_first,
            error_cb=self._on_error,
            closed_cb=self._on_closed,
            lame_duck_mode_cb=self._on_closed,
        )
        if not client.is_connected:
            raise BusError("nats_closed", "the server has closed the connection")
        for subscription in self._subscriptions:
            await self._client.subscribe(subscription.subject, cb=_receiver(subscription))
        for subject, answer in self._answers:
            await self._client.subscribe(subject, cb=_answerer(client, answer))
        if self._was_connected:
            await self._on_reconnected()
        self._was_connected = True
        self._on_connected()

    def _sign(self, nonce: str) -> bytes:
        """Return the signature of a server's nonce. The file is read for each connection."""
        assert self._credentials is not None
        self._credentials.read()
        return self._credentials.sign(nonce).encode()

    def _user_jwt(self) -> bytes:
        """Return the user JWT, which `_sign` has just read."""
        assert self._credentials is not None
        return self._credentials.jwt.encode()

    async def _publish(self) -> None:
        while True:
            subject, datum = await self._outbox.get()
            self._outbox_size -= len(datum)
            try:
                while not self._client.is_connected:
                    # Here is more room than in nats-py.
                    await asyncio.sleep(CONNECTION_POLL)
                await self._client.publish(subject, datum)
            except Exception as error:  # noqa: BLE001 - as above; later events must be published all the same
                self.dropped += 1
                log.debug("event dropped", subject=subject, error=str(error) or type(error).__name__)
            finally:
                self._outbox.task_done()

    async def _on_error(self, error: Exception) -> None:
        if self._client.is_connected:
            log.debug("NATS control connection", error=str(error) or type(error).__name__)
        else:
            self._report(error)

    async def _on_closed(self) -> None:
        self._closed.set()

    def _on_connected(self) -> None:
        self.last_error = ""
        self._reported.clear()

    async def _on_reconnected(self) -> None:
        self._on_connected()
        # So that nothing which happens from now on is missed.
        with contextlib.suppress(nats.errors.Error):
            await flush(self._client)
        for act in self._when_reconnected:
            act()

    async def _close(self) -> None:
        with contextlib.suppress(Exception):
            # A server that hangs would hold up nats-py for ever.
            async with asyncio.timeout(DRAIN_TIMEOUT):
                await self._client.close()


def _answerer(client: NatsClient, answer: Callable[[bytes], bytes]) -> Callable[[Msg], Awaitable[None]]:
    async def receive(message: Msg) -> None:
        try:
            datum = answer(message.data)
            if message.reply:
                await client.publish(message.reply, datum)
        except Exception:
            log.exception("a request could not be answered", subject=message.subject)

    return receive


def _receiver(subscription: Subscription) -> Callable[[Msg], Awaitable[None]]:
    async def receive(message: Msg) -> None:
        try:
            if not message.data and message.headers and message.headers.get("Status") == NO_RESPONDERS:
                if subscription.unanswered is not None:
                    subscription.unanswered()
                return
            subscription.handle(message.subject, message.data)
        except Exception:
            # The messages after it are to be handled all the same.
            log.exception("a control message could not be handled", subject=subscription.subject)

    return receive
