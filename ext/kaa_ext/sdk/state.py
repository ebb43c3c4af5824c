"""The state of a service: typed values by key, in a JetStream bucket that its replicas share.

A key has parts, such as an application version and an endpoint ID. NATS allows only some characters in keys, so each
part is escaped (see `escaped`), and the parts are joined with dots.
"""

import random
import re
from asyncio import sleep
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

import msgspec
from nats.aio.msg import Msg

from kaa_ext.sdk.buckets import Bucket, Conflict
from kaa_ext.sdk.errors import StateUnavailable

T = TypeVar("T")

ATTEMPTS = 20
"""Attempts of a change while other replicas change the same key."""
PAUSE_S = 0.005
"""The longest pause before the second attempt; it grows with each attempt."""

_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
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


class State(Generic[T]):
    """The values of a bucket, all of one type. Made by `Extension.state`.

    Every method may raise StateUnavailable, which becomes 503 for a device.
    """

    def __init__(self, bucket: Callable[[], Bucket], kind: type[T]) -> None:
        self._make_bucket = bucket
        self._decode = msgspec.json.Decoder(kind).decode
        self._encode = msgspec.json.Encoder().encode

    async def open(self) -> None:
        """Make the bucket if it does not exist."""
        self._bucket = self._make_bucket()
        await self._bucket.open()

    def listener(self, changed: Callable[[tuple[str, ...], T], None]) -> Callable[[Msg], None]:
        """Return a subscriber of `buckets.changes_subject`: `changed` gets the key and value of each change."""

        def receive(message: Msg) -> None:
            if message.data:
                changed(_parts(message.subject.split(".", 2)[2]), self._decode(message.data))

        return receive

    async def get(self, *key: str) -> T | None:
        """Return the value of a key, or None."""
        entry = await self._bucket.get(_joined(key))
        return self._decode(entry.value) if entry and entry.value else None

    async def put(self, *key: str, value: T) -> None:
        """Set the value of a key, whatever it was before."""
        await self._bucket.put(_joined(key), self._encode(value))

    async def change(self, *key: str, change: Callable[[T | None], T | None]) -> T | None:
        """Replace the value of a key by the result of `change`, atomically. Return the new value.

        `change` gets the current value (None: no key) and returns the new one (None: remove the key). It may be called
        several times, so it must have no side effects and must not modify its argument. If it raises, nothing changes.
        """
        joined = _joined(key)
        for attempt in range(ATTEMPTS):
            entry = await self._bucket.get(joined)
            before = self._decode(entry.value) if entry and entry.value else None
            after = change(before)
            if after == before:
                return after
            try:
                if after is not None:
                    await self._bucket.replace(joined, self._encode(after), entry.revision if entry else 0)
                elif entry is not None:
                    await self._bucket.delete(joined, entry.revision)
            except Conflict:
                await sleep(random.uniform(0, PAUSE_S * (attempt + 1)))
            else:
                return after
        raise StateUnavailable("the key is changed by too many at once")

    async def entries(self) -> AsyncIterator[tuple[tuple[str, ...], T]]:
        """Yield all keys and their values."""
        async for key, entry in self._bucket.entries():
            if entry.value:
                yield _parts(key), self._decode(entry.value)


def _joined(key: tuple[str, ...]) -> str:
    return ".".join(map(escaped, key))


def _parts(key: str) -> tuple[str, ...]:
    return tuple(map(unescaped, key.split(".")))
