"""The state of a service: typed values by key, shared by its replicas and kept over restarts, in a JetStream bucket.

A key is made of parts, such as an application version and an endpoint ID. In the bucket each part is escaped, since
NATS keys take only some characters, and the parts are joined with dots: `escaped` below says how.
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
"""How often a change is tried while other replicas change the same key."""
PAUSE_S = 0.005
"""The longest pause before the second attempt; it grows with each."""

_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
_ESCAPE = re.compile("=([0-9A-F]{2})")


def escaped(part: str) -> str:
    """A part of a key as the bucket has it: all but letters, digits, `_` and `-` is `=` and two hexadecimal digits.

    An empty part is `=`.
    """
    return _UNSAFE.sub(lambda found: b"=%02X" % found[0][0], part.encode()).decode() or "="


def unescaped(part: str) -> str:
    """The part that was escaped so."""
    if part == "=":
        return ""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), part).encode("latin-1").decode()


class State(Generic[T]):
    """The values of one bucket, all of one type. Made by `Extension.state`.

    Every method may raise StateUnavailable, which tells a device 503.
    """

    def __init__(self, bucket: Callable[[], Bucket], kind: type[T]) -> None:
        self._make_bucket = bucket
        self._decode = msgspec.json.Decoder(kind).decode
        self._encode = msgspec.json.Encoder().encode

    async def open(self) -> None:
        """Make the bucket if it is not there."""
        self._bucket = self._make_bucket()
        await self._bucket.open()

    def hearing(self, changed: Callable[[tuple[str, ...], T], None]) -> Callable[[Msg], None]:
        """What calls `changed` with key and value of each message that tells of a change (buckets.changes_subject)."""

        def receive(message: Msg) -> None:
            if message.data:
                changed(_parts(message.subject.split(".", 2)[2]), self._decode(message.data))

        return receive

    async def get(self, *key: str) -> T | None:
        """The value of a key, or None."""
        entry = await self._bucket.get(_joined(key))
        return self._decode(entry.value) if entry and entry.value else None

    async def put(self, *key: str, value: T) -> None:
        """Set a key, whatever its value is."""
        await self._bucket.put(_joined(key), self._encode(value))

    async def change(self, *key: str, change: Callable[[T | None], T | None]) -> T | None:
        """Replace the value of a key by what `change` makes of it, as one step that no other replica comes between.

        `change` may be called several times, so it only computes, and leaves the value that it is given as it is.
        Either value may be None, for none. Returns the new one. What `change` raises passes, and nothing is changed.
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
        """All keys and their values, as they are now."""
        async for key, entry in self._bucket.entries():
            if entry.value:
                yield _parts(key), self._decode(entry.value)


def _joined(key: tuple[str, ...]) -> str:
    return ".".join(map(escaped, key))


def _parts(key: str) -> tuple[str, ...]:
    return tuple(map(unescaped, key.split(".")))
