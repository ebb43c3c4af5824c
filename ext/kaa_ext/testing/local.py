"""A double of NATS in one process, for tests.

It has subjects with `*` and `>`, queue groups, no-responders reports, and key-value buckets; no streams.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from kaa_gateway.bus.codes import NO_RESPONDERS
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from kaa_ext.sdk.buckets import Bucket
from kaa_ext.sdk.connection import Interest
from kaa_ext.sdk.errors import Conflict, NotDelivered
from kaa_ext.sdk.local_copy import Entry
from kaa_ext.sdk.receivers import MessageReceiver


class LocalBus:
    """The server: routes messages to subscriptions, and keeps buckets in memory."""

    def __init__(self) -> None:
        self.buckets: dict[str, MemoryBucket] = {}
        self._interests: list[tuple[object, Interest]] = []

    def join(self, owner: object, interests: Sequence[Interest]) -> None:
        """Add subscriptions."""
        self._interests += [(owner, interest) for interest in interests]

    def leave(self, owner: object, *, answers_too: bool) -> None:
        """End the subscriptions of an owner."""
        self._interests = [
            (whose, interest)
            for whose, interest in self._interests
            if whose is not owner or (interest.kind == "answers" and not answers_too)
        ]

    async def subscribe(self, subject: str, callback: Callable[[Msg], Any]) -> None:
        """Have a plain function called for each message on a subject."""

        self.join(self, [Interest(subject, "", MessageReceiver(callback))])

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Send a message to all matching subscriptions."""
        self.send(subject, payload, reply)

    def send(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Send a message to all matching subscriptions, in the next turn of the event loop."""
        later = asyncio.get_running_loop().call_soon
        receivers = list(self._receivers(subject))
        for receiver in receivers:
            later(receiver.deliver, subject, reply, payload)
        if not receivers and reply:
            for receiver in self._receivers(reply):
                later(receiver.deliver, reply, "", b"", {"Status": NO_RESPONDERS})

    def _receivers(self, subject: str) -> Iterator[Any]:
        """Yield what takes a message: all without queue group, and one of each group, in turn."""
        groups: set[str] = set()
        for member in list(self._interests):
            _, interest = member
            if _matches(interest.subject, subject) and interest.queue not in groups:
                if interest.queue:
                    groups.add(interest.queue)
                    self._interests.remove(member)
                    self._interests.append(member)
                yield interest.receiver


class LocalConnection:
    """An extension's connection to a LocalBus."""

    connects = 1
    ready = True
    unconfirmed_bytes = 0

    def __init__(self, bus: LocalBus, interests: Sequence[Interest]) -> None:
        self._bus = bus
        self._interests = interests

    def jetstream(self) -> JetStreamContext:
        """Raise NotDelivered: there is no JetStream here."""
        raise NotDelivered("there is no JetStream here: streams need `online`")

    def bucket(self, name: str, ttl_s: float | None, replicas: int) -> Bucket:
        """Return the bucket of this name, which all connections share."""
        return self._bus.buckets.setdefault(name, MemoryBucket(name, self._bus.publish))

    async def open(self) -> None:
        """Subscribe to all but requests."""
        self._bus.join(self, [interest for interest in self._interests if interest.kind != "requests"])

    async def accept(self) -> None:
        """Subscribe to requests."""
        self._bus.join(self, [interest for interest in self._interests if interest.kind == "requests"])

    def send(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a message. Headers are not kept."""
        self._bus.send(subject, payload, reply)

    async def room(self) -> None:
        """Do nothing: messages leave at once."""

    async def drain(self) -> None:
        """End all subscriptions except those to answers."""
        self._bus.leave(self, answers_too=False)

    async def flush(self) -> None:
        """Do nothing: messages leave at once."""

    async def close(self) -> None:
        """End the subscriptions."""
        self._bus.leave(self, answers_too=True)


class MemoryBucket:
    """A bucket in memory that publishes its changes as NATS does. It ignores the time to live."""

    def __init__(self, name: str, publish: Callable[[str, bytes], Awaitable[None]]) -> None:
        self._name = name
        self._publish = publish
        self._entries: dict[str, Entry] = {}
        self._revisions = itertools.count(1)

    async def open(self) -> None:
        """Do nothing: the bucket exists."""

    async def get(self, key: str) -> Entry | None:
        """Return the current value of a key, or None."""
        # Let other tasks run, as a real bucket does, so that tests detect changes that are not atomic.
        await asyncio.sleep(0)
        return self._entries.get(key)

    async def get_all(self, keys: Sequence[str]) -> list[Entry | None]:
        """Return the current values of keys."""
        return [await self.get(key) for key in keys]

    async def recall(self, key: str) -> Entry | None:
        """Return the current value of a key, or None."""
        return await self.get(key)

    async def put(self, key: str, value: bytes) -> None:
        """Write a value, whatever the revision."""
        self._entries[key] = Entry(value, next(self._revisions))
        await self._publish(f"$KV.{self._name}.{key}", value)

    async def replace(self, key: str, value: bytes, revision: int) -> None:
        """Write a value if the key has this revision. Raise Conflict if not."""
        self._check(key, revision)
        await self.put(key, value)

    async def delete(self, key: str, revision: int) -> None:
        """Remove the key if it has this revision. Raise Conflict if not."""
        self._check(key, revision)
        del self._entries[key]

    async def entries(self, prefix: str = "", start: int = 0) -> AsyncGenerator[tuple[str, Entry], None]:
        """Yield the keys below a prefix with their values, in the order of their revisions."""
        below = f"{prefix}." if prefix else ""
        for key, entry in sorted(self._entries.items(), key=lambda item: item[1].revision):
            if entry.revision >= start and key.startswith(below):
                yield key, entry

    async def watch(self) -> None:
        """Do nothing: there is no copy."""

    def receive(self, message: Msg) -> None:
        """Do nothing: there is no copy."""

    def _check(self, key: str, revision: int) -> None:
        entry = self._entries.get(key)
        if (entry.revision if entry else 0) != revision:
            raise Conflict


def _matches(pattern: str, subject: str) -> bool:
    if pattern == subject:
        return True
    expected, found = pattern.split("."), subject.split(".")
    if expected[-1] == ">":
        return len(found) >= len(expected) and _levels_match(expected[:-1], found)
    return len(found) == len(expected) and _levels_match(expected, found)


def _levels_match(expected: list[str], found: list[str]) -> bool:
    return all(level in ("*", token) for level, token in zip(expected, found, strict=False))
