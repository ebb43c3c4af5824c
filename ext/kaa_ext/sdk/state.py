"""The state of a service: typed values by key, in a JetStream bucket that its replicas share.

A key has parts, such as an application version and an endpoint ID. NATS allows only some characters in keys, so each
part is escaped (see `escaped`), and the parts are joined with dots.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Generic, NamedTuple, TypeVar

import msgspec
from nats.aio.msg import Msg

from kaa_ext.sdk.buckets import Bucket
from kaa_ext.sdk.errors import Conflict, StateUnavailable
from kaa_ext.sdk.local_copy import Entry

T = TypeVar("T")

ATTEMPTS = 20
"""Attempts of a change while other replicas change the same key."""
PAUSE_S = 0.005
"""The longest pause before the second attempt; it grows with each attempt."""

_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
_SAFE = re.compile("[A-Za-z0-9_-]+").fullmatch
_ESCAPE = re.compile("=([0-9A-F]{2})")


def escaped(part: str) -> str:
    """Return a part of a key as it is in the bucket.

    Bytes other than letters, digits, `_` and `-` become `=` and two hexadecimal digits; an empty part becomes `=`.
    """
    return _UNSAFE.sub(lambda found: b"=%02X" % found[0][0], part.encode()).decode() or "="


def unescaped(part: str) -> str:
    """Return the part of a key that `escaped` turned into this text."""
    if part == "=":
        return ""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), part).encode("latin-1").decode()


class Page(NamedTuple, Generic[T]):
    """Some keys with their values; `next` is where the next page starts, None after the last one."""

    entries: list[tuple[tuple[str, ...], T]]
    next: int | None


class _Change(Generic[T]):
    """A change that waits for its turn, and the future of its result."""

    __slots__ = ("change", "outcome", "result")

    def __init__(self, change: Callable[[T | None], T | None]) -> None:
        self.change = change
        self.result: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        self.outcome: T | Exception | None = None

    def apply(self, before: T | None) -> T | None:
        """Compute the outcome on a value. Return the value after it, which is the same if the change raises."""
        try:
            after = self.change(before)
        except Exception as error:  # noqa: BLE001 - it goes to the caller of the change
            self.outcome = error
            return before
        self.outcome = after
        return after

    def finish(self) -> None:
        """Give the outcome to the caller."""
        if self.result.done():
            return
        if isinstance(self.outcome, Exception):
            self.result.set_exception(self.outcome)
        else:
            self.result.set_result(self.outcome)

    def fail(self, error: BaseException) -> None:
        """Give an error to the caller."""
        if not self.result.done():
            self.result.set_exception(error)


class State(Generic[T]):
    """The values of a bucket, all of one type. Made by `Extension.state`.

    Values are shared: who gets one must not modify it. Every method may raise StateUnavailable, which becomes 503 for a
    device.
    """

    def __init__(self, bucket: Callable[[], Bucket], kind: type[T]) -> None:
        self._make_bucket = bucket
        self._decode = msgspec.json.Decoder(kind).decode
        self._encode = msgspec.json.Encoder().encode
        self._changes: dict[str, list[_Change[T]]] = {}
        """The changes of a key that wait while its value is being written."""
        self._writers: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Make the bucket if it does not exist."""
        self._bucket = self._make_bucket()
        await self._bucket.open()

    async def watch(self) -> None:
        """Keep the copy of the bucket in memory up to date, until this is cancelled."""
        await self._bucket.watch()

    def receive(self, message: Msg) -> None:
        """Handle a message for the copy of the bucket."""
        self._bucket.receive(message)

    def listener(self, changed: Callable[[tuple[str, ...], T], None]) -> Callable[[Msg], None]:
        """Return a subscriber of `buckets.changes_subject`: `changed` gets the key and value of each change."""

        def receive(message: Msg) -> None:
            if message.data:
                changed(_parts(message.subject.split(".", 2)[2]), self._decode(message.data))

        return receive

    async def get(self, *key: str) -> T | None:
        """Return the value of a key, or None."""
        return self._value(await self._bucket.get(joined(key)))

    async def get_all(self, keys: Iterable[tuple[str, ...]]) -> list[T | None]:
        """Return the value of each key, or None; for many keys this costs less than `get`."""
        return [self._value(each) for each in await self._bucket.get_all([*map(joined, keys)])]

    async def put(self, *key: str, value: T) -> None:
        """Set the value of a key, whatever it was before."""
        await self._bucket.put(joined(key), self._encode(value))

    async def change(self, *key: str, change: Callable[[T | None], T | None]) -> T | None:
        """Replace the value of a key by the result of `change`, atomically. Return the new value.

        `change` gets the current value (None: no key) and returns the new one (None: remove the key). It may be called
        several times, so it must have no side effects and must not modify its argument. If it raises, nothing changes.
        """
        return await self.submit(*key, change=change)

    def submit(self, *key: str, change: Callable[[T | None], T | None]) -> "asyncio.Future[T | None]":
        """Begin a `change`, and return the future of its result.

        Changes of a key happen in the order in which they are submitted here. Those that are submitted while the key is
        being written are written together.
        """
        name = joined(key)
        waiting = _Change(change)
        changes = self._changes.get(name)
        if changes is not None:
            changes.append(waiting)
        else:
            self._changes[name] = [waiting]
            writer = asyncio.create_task(self._write(name))
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        return waiting.result

    async def _write(self, key: str) -> None:
        """Make the changes of a key, as long as there are any."""
        while changes := self._changes[key]:
            self._changes[key] = []
            try:
                await self._write_together(key, changes)
            except BaseException as error:
                for each in [*changes, *self._changes[key]]:
                    each.fail(error)
                self._changes[key] = []
                if not isinstance(error, Exception):
                    del self._changes[key]
                    raise
        del self._changes[key]

    async def _write_together(self, key: str, changes: list[_Change[T]]) -> None:
        """Make changes of a key in one write, and give each its result."""
        bucket = self._bucket
        entry = await bucket.recall(key)
        for attempt in range(ATTEMPTS):
            before = after = self._value(entry)
            for each in changes:
                after = each.apply(after)
            revision = entry.revision if entry else 0
            try:
                if after == before:
                    # Nothing to write: then the value must not be an old one.
                    entry = await bucket.get(key)
                    if (entry.revision if entry else 0) != revision:
                        continue
                elif after is not None:
                    await bucket.replace(key, self._encode(after), revision)
                else:
                    await bucket.delete(key, revision)
            except Conflict:
                await asyncio.sleep(random.uniform(0, PAUSE_S * (attempt + 1)))
                entry = await bucket.get(key)
            else:
                for each in changes:
                    each.finish()
                return
        raise StateUnavailable("the key is changed by too many at once")

    async def entries(self) -> AsyncIterator[tuple[tuple[str, ...], T]]:
        """Yield all keys and their values."""
        async for key, entry in self._bucket.entries():
            if entry.value:
                yield _parts(key), self._decode(entry.value)

    async def page(self, *prefix: str, start: int, limit: int) -> Page[T]:
        """Return the first `limit` keys that begin with the parts of `prefix`, in the order of their last changes.

        `start` is 0, or the `next` of the page before. A key that changes between two pages may be in both.
        """
        found: list[tuple[tuple[str, ...], T]] = []
        async with aclosing(self._bucket.entries(joined(prefix), start)) as entries:
            async for key, entry in entries:
                if not entry.value:
                    continue
                if len(found) == limit:
                    return Page(found, entry.revision)
                found.append((_parts(key), self._decode(entry.value)))
        return Page(found, None)

    def _value(self, entry: Entry | None) -> T | None:
        if entry is None or not entry.value:
            return None
        if entry.decoded is None:
            entry.decoded = self._decode(entry.value)
        value: T = entry.decoded
        return value


def joined(key: tuple[str, ...]) -> str:
    """Return a key as it is in the bucket."""
    return ".".join([part if _SAFE(part) else escaped(part) for part in key])


def _parts(key: str) -> tuple[str, ...]:
    return tuple(map(unescaped, key.split(".")))
