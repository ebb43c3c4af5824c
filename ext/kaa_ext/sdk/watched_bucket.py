"""A bucket that is read from a copy in memory, which a JetStream consumer keeps up to date.

Reads are as fresh as those of the server. Before a read, the bucket asks the server for the end of the stream, once for
all reads of the moment, and waits until the copy has got there. Without a watch that is known to be whole (at the
start, after a lost message, without heartbeat, after a new connection to NATS), reads go to the server.

Writes compare the revision at the server, so a change that is computed on an old copy fails and is computed again.

Source: NATS documentation, "JetStream consumers" (push consumer, idle heartbeat), "Key/Value Store" (ADR-8).
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import structlog
from kaa_gateway.bus import subjects
from nats.aio.msg import Msg

from kaa_ext.sdk.buckets import JetStreamBucket
from kaa_ext.sdk.errors import Conflict, NotDelivered, StateUnavailable
from kaa_ext.sdk.local_copy import Entry, LocalCopy
from kaa_ext.sdk.publisher import ApiError, Publisher

HEARTBEAT_S = 2.0
"""The pause after which the server sends a heartbeat if nothing changes."""
SILENCE_MAX_S = 3 * HEARTBEAT_S
"""A watch that has not received anything for this long is broken."""
CATCH_UP_S = 1.0
"""How long a read waits for the copy; then it goes to the server."""
REBUILD_S = 0.5
"""The pause before a broken watch is replaced."""
MARKER_S = 60.0
"""How long a deleted key leaves an empty value behind: longer than any watch takes to get it or to be broken."""
MARKERS_MAX = 100_000
"""Empty values that we remember to remove; those beyond are removed after the next start of a replica."""
SHORT_REPLY = 9
"""Tokens in the reply-to of a delivered message without domain."""
NANOSECONDS = 1_000_000_000


class _State(msgspec.Struct, frozen=True):
    messages: int = 0
    last_seq: int = 0


class _Config(msgspec.Struct, frozen=True):
    max_age: int = 0


class _StreamInfo(msgspec.Struct):
    state: _State = _State()
    config: _Config = _Config()
    created: str = ""
    error: ApiError | None = None


class _Delivered(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class _ConsumerInfo(msgspec.Struct):
    num_pending: int = 0
    delivered: _Delivered = _Delivered()
    error: ApiError | None = None


_stream_info = msgspec.json.Decoder(_StreamInfo).decode
_consumer_info = msgspec.json.Decoder(_ConsumerInfo).decode


class Watch:
    """One consumer: what it has delivered, and whether it is whole. It fills `copy`."""

    def __init__(
        self, name: str, copy: LocalCopy, subject_prefix: str, created: str, connection: int
    ) -> None:
        self.name = name
        self.copy = copy
        self.created = created
        self.connection = connection
        self.position = 0
        """The sequence of the stream up to which the copy is complete."""
        self.loaded = asyncio.Event()
        self.broken = asyncio.Event()
        self.reading: dict[str, int] = {}
        """Keys that are read from the server, with the newest revision that arrived meanwhile."""
        self.markers: deque[tuple[float, str, int]] = deque(maxlen=MARKERS_MAX)
        """Keys that were deleted, with the time at which we learned of it and the revision."""
        self._prefix = subject_prefix
        self._delivered = 0
        self._heard_at = asyncio.get_running_loop().time()
        self._reached: list[tuple[int, asyncio.Future[None]]] = []
        self._loop = asyncio.get_running_loop()

    @property
    def whole(self) -> bool:
        """Return whether the copy has all that was there at the start, and nothing was lost since."""
        return self.loaded.is_set() and not self.broken.is_set() and self.heard_lately

    @property
    def heard_lately(self) -> bool:
        """Return whether the consumer is known to live."""
        return self._loop.time() - self._heard_at < SILENCE_MAX_S

    def receive(self, message: Msg) -> None:
        """Handle a message or a heartbeat of the consumer."""
        self._heard_at = self._loop.time()
        if not message.reply.startswith("$JS.ACK."):
            last = (message.headers or {}).get("Nats-Last-Consumer")
            if last is not None and int(last) != self._delivered:
                self.broken.set()
            else:
                self.loaded.set()
            return
        # $JS.ACK.<stream>.<consumer>..., or $JS.ACK.<domain>.<account>.<stream>.<consumer>...
        tokens = message.reply.split(".")
        at = 2 if len(tokens) == SHORT_REPLY else 4
        if tokens[at + 1] != self.name:
            return  # of the watch before
        sequence, delivered, pending = int(tokens[at + 3]), int(tokens[at + 4]), int(tokens[at + 6])
        if delivered != self._delivered + 1:
            self.broken.set()
            return
        self._delivered = delivered
        key = message.subject[len(self._prefix) :]
        self.put(key, Entry(message.data, sequence))
        if not message.data:
            self.markers.append((self._heard_at, key, sequence))
        if not pending:
            self.loaded.set()
        self.advance(sequence)

    def put(self, key: str, entry: Entry) -> None:
        """Store an entry of the server."""
        self.copy.put(key, entry)
        if self.reading and key in self.reading:
            self.reading[key] = max(self.reading[key], entry.revision)

    def advance(self, sequence: int) -> None:
        """Take note that the copy is complete up to a sequence."""
        self.position = max(self.position, sequence)
        while self._reached and self._reached[0][0] <= self.position:
            _, future = self._reached.pop(0)
            if not future.done():
                future.set_result(None)

    async def reach(self, sequence: int) -> bool:
        """Wait until the copy is complete up to a sequence. Return False if that takes too long."""
        if self.position >= sequence:
            return True
        future: asyncio.Future[None] = self._loop.create_future()
        self._reached.append((sequence, future))
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_S):
                await future
                return True
        return False


class WatchedBucket:
    """A bucket of a NATS server with a copy in memory.

    `connects` counts the connections to NATS. Messages on `deliver_subject`, which has a subscription of its own (a
    push consumer finds no other), go to `receive`.
    """

    def __init__(
        self,
        bucket: JetStreamBucket,
        publisher: Publisher,
        connects: Callable[[], int],
        deliver_subject: str,
        new_copy: Callable[[], LocalCopy] = LocalCopy,
        jetstream_domain: str | None = None,
    ) -> None:
        self._bucket = bucket
        self._publisher = publisher
        self._connects = connects
        self._deliver_subject = deliver_subject
        self._new_copy = new_copy
        self._domain = jetstream_domain
        self._stream = f"KV_{bucket.name}"
        self._prefix = f"$KV.{bucket.name}."
        self._watch: Watch | None = None
        self._consumer = ""
        self._watches = 0
        self._next: asyncio.Future[bool] | None = None
        self._confirming: asyncio.Task[None] | None = None
        self._log: Any = structlog.get_logger(bucket=bucket.name)

    @property
    def watch_is_whole(self) -> bool:
        """Return whether reads come from memory."""
        watch = self._watch
        return watch is not None and watch.whole and watch.connection == self._connects()

    async def open(self) -> None:
        """Make the bucket if it does not exist."""
        await self._bucket.open()

    # ------------------------------------------------------------ reads

    async def get(self, key: str) -> Entry | None:
        """Return the current value of a key, or None."""
        (entry,) = await self.get_all([key])
        return entry

    async def get_all(self, keys: Sequence[str]) -> list[Entry | None]:
        """Return the current values of keys."""
        current = await self._is_current()
        found = [self._recalled(key) if current else None for key in keys]
        if current and None not in found:
            return found
        return [each or await self._read(key) for key, each in zip(keys, found, strict=True)]

    async def recall(self, key: str) -> Entry | None:
        """Return the value of a key as this process knows it, which may be old; from the server if it does not."""
        found = self._recalled(key) if self.watch_is_whole else None
        return found or await self._read(key)

    def _recalled(self, key: str) -> Entry | None:
        """Return the entry of the copy, None if the server must be asked."""
        watch = self._watch
        if watch is None:
            return None
        entry = watch.copy.get(key)
        if entry is None and watch.copy.complete:
            return Entry(b"", 0)
        return entry

    async def _read(self, key: str) -> Entry | None:
        """Read a key from the server, and keep it in the copy."""
        watch = self._watch
        if watch is None or not watch.whole or key in watch.reading:
            return await self._bucket.get(key)
        watch.reading[key] = 0
        try:
            entry = await self._bucket.get(key) or Entry(b"", 0)
        finally:
            newest = watch.reading.pop(key)
        if entry.revision >= newest:
            watch.copy.put(key, entry)
        return entry

    async def _is_current(self) -> bool:
        """Bring the copy up to what the server had when this was called. Return False if that is not possible."""
        if not self.watch_is_whole:
            return False
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            if self._confirming is None:
                self._confirming = asyncio.create_task(self._confirm())
        return await asyncio.shield(self._next)

    async def _confirm(self) -> None:
        """Ask the server for the end of the stream, as long as there are reads to confirm; one request at a time."""
        try:
            while self._next is not None:
                waiting, self._next = self._next, None
                current = False
                try:
                    current = await self._catch_up()
                finally:
                    waiting.set_result(current)
        finally:
            self._confirming = None

    async def _catch_up(self) -> bool:
        watch = self._watch
        if watch is None:
            return False
        try:
            info = await self._ask_stream()
        except StateUnavailable:
            return False
        if info.created != watch.created or info.state.last_seq < watch.position:
            # The bucket was deleted, and perhaps made again.
            watch.broken.set()
        elif not info.state.messages and len(watch.copy):
            # It was purged. What we still have may be markers, which others have removed.
            watch.broken.set()
        elif await watch.reach(info.state.last_seq):
            return watch is self._watch and self.watch_is_whole
        return False

    # ------------------------------------------------------------ writes

    async def put(self, key: str, value: bytes) -> None:
        """Write a value, whatever the revision."""
        self._wrote(key, value, await self._publisher.publish(self._api(self._prefix + key), value))

    async def replace(self, key: str, value: bytes, revision: int) -> None:
        """Write a value if the key has this revision (0: no key). Raise Conflict if not."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        try:
            self._wrote(
                key, value, await self._publisher.publish(self._api(self._prefix + key), value, headers)
            )
        except Conflict:
            await self._refresh(key)
            raise

    async def delete(self, key: str, revision: int) -> None:
        """Remove the key if it has this revision. Raise Conflict if not."""
        await self.replace(key, b"", revision)

    def _wrote(self, key: str, value: bytes, revision: int) -> None:
        if self._watch is not None:
            self._watch.put(key, Entry(value, revision))

    async def _refresh(self, key: str) -> None:
        """Read a key after a conflict. A marker that others have removed is forgotten."""
        watch = self._watch
        if watch is None:
            return
        known = watch.copy.get(key)
        entry = await self._bucket.get(key)
        if entry is not None:
            watch.put(key, entry)
        elif known is not None:
            watch.copy.forget(key, known.revision)

    async def entries(self, prefix: str = "", start: int = 0) -> AsyncGenerator[tuple[str, Entry], None]:
        """Yield the keys below a prefix with their values, from the server."""
        async for each in self._bucket.entries(prefix, start):
            yield each

    # ------------------------------------------------------------ the watch

    def _api(self, what: str) -> str:
        """Return a subject of JetStream, in the domain."""
        return subjects.jetstream(self._domain, what)

    async def watch(self) -> None:
        """Keep the copy up to date; never returns, unless the bucket has values that expire."""
        try:
            while True:
                try:
                    if not await self._keep():
                        return
                except StateUnavailable as error:
                    self._log.debug("the bucket cannot be watched, trying again", error=error.reason)
                await asyncio.sleep(REBUILD_S)
        finally:
            if self._consumer:
                with suppress(NotDelivered):
                    await self._publisher.tell(self._api(f"CONSUMER.DELETE.{self._stream}.{self._consumer}"))

    def receive(self, message: Msg) -> None:
        """Handle a message on the deliver subject."""
        if self._watch is not None:
            self._watch.receive(message)

    async def _keep(self) -> bool:
        """Watch until that breaks. Return False if the bucket cannot be watched at all."""
        if self._consumer:
            await self._publisher.request(self._api(f"CONSUMER.DELETE.{self._stream}.{self._consumer}"))
            self._consumer = ""
        connection = self._connects()
        info = await self._ask_stream()
        if info.config.max_age:
            return False  # the server removes values without a word
        self._watches += 1
        name = f"{self._deliver_subject.split('.')[1]}-{self._watches}"
        copy = self._new_copy()
        watch = self._watch = Watch(name, copy, self._prefix, info.created, connection)
        try:
            policy = "last_per_subject"
            if not copy.has_room(info.state.messages):
                policy, copy.complete = "new", False
            self._consumer = name
            consumer = await self._make_consumer(name, policy)
            if not consumer.num_pending:
                watch.loaded.set()
            watch.advance(consumer.delivered.stream_seq)
            await self._until_loaded(watch)
            # Sequences up to here that are not in the copy belong to values that are gone.
            watch.advance(info.state.last_seq)
            self._log.debug("the bucket is in memory", entries=len(copy))
            while watch.whole and watch.connection == self._connects():
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_S):
                        await watch.broken.wait()
                await self._remove_markers(watch)
            self._log.debug("the watch of the bucket is broken, making a new one")
            return True
        finally:
            self._watch = None

    async def _remove_markers(self, watch: Watch) -> None:
        """Remove the empty values of keys that were deleted a while ago."""
        due = asyncio.get_running_loop().time() - MARKER_S
        while watch.markers and watch.markers[0][0] <= due:
            _, key, revision = watch.markers.popleft()
            request = {"filter": self._prefix + key, "seq": revision + 1}
            await self._publisher.request(
                self._api(f"STREAM.PURGE.{self._stream}"), msgspec.json.encode(request)
            )
            watch.copy.forget(key, revision)

    async def _until_loaded(self, watch: Watch) -> None:
        """Return when the copy has all values, or the watch is broken."""
        while not watch.loaded.is_set() and not watch.broken.is_set() and watch.heard_lately:
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await watch.loaded.wait()

    async def _make_consumer(self, name: str, policy: str) -> _ConsumerInfo:
        config = {
            "name": name,
            "deliver_subject": self._deliver_subject,
            "deliver_policy": policy,
            "filter_subject": f"{self._prefix}>",
            "ack_policy": "none",
            "replay_policy": "instant",
            "idle_heartbeat": int(HEARTBEAT_S * NANOSECONDS),
            "inactive_threshold": int(SILENCE_MAX_S * NANOSECONDS),
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
        }
        request = {"stream_name": self._stream, "config": config, "action": "create"}
        answer = await self._publisher.request(
            self._api(f"CONSUMER.CREATE.{self._stream}.{name}.{self._prefix}>"), msgspec.json.encode(request)
        )
        info = _consumer_info(answer)
        if info.error is not None:
            raise StateUnavailable(info.error.description)
        return info

    async def _ask_stream(self) -> _StreamInfo:
        info = _stream_info(await self._publisher.request(self._api(f"STREAM.INFO.{self._stream}")))
        if info.error is not None:
            raise StateUnavailable(info.error.description)
        return info
