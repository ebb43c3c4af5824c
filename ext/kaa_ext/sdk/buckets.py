"""JetStream key-value buckets: keys with revisions, and writes that compare the revision.

Keys have the characters that NATS allows (see state.py). A deleted key has an empty value, which running replicas of
the service remove a minute later (see watched_bucket.py).
"""

from asyncio import sleep
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Protocol

import nats.errors
from kaa_gateway.bus import subjects
from kaa_gateway.bus.codes import STREAM_NAME_IN_USE
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from kaa_ext.sdk.errors import Conflict, NotDelivered, StateUnavailable, text_of
from kaa_ext.sdk.local_copy import Entry
from kaa_ext.sdk.streams import stored

RECONNECT_S = 1.0
"""How long a read or a write waits for the client to be connected again."""
RECONNECT_POLL_S = 0.02


def changes_subject(name: str, key: str = ">") -> str:
    """Return the subject on which NATS publishes each value that is written to a key of a bucket (default: to any)."""
    return f"$KV.{name}.{key}"


class Bucket(Protocol):
    """The key-value store below `State`. Each method may raise StateUnavailable."""

    async def open(self) -> None:
        """Make the bucket if it does not exist."""

    async def get(self, key: str) -> Entry | None:
        """Return the current value of a key, or None."""

    async def get_all(self, keys: Sequence[str]) -> list[Entry | None]:
        """Return the current values of keys."""

    async def recall(self, key: str) -> Entry | None:
        """Return a value of a key that may be old, to compute a conditional write on."""

    async def put(self, key: str, value: bytes) -> None:
        """Write a value, whatever the revision."""

    async def replace(self, key: str, value: bytes, revision: int) -> None:
        """Write a value if the key has this revision (0: no key). Raise Conflict if not."""

    async def delete(self, key: str, revision: int) -> None:
        """Remove the key if it has this revision. Raise Conflict if not."""

    def entries(self, prefix: str = "", start: int = 0) -> AsyncGenerator[tuple[str, Entry], None]:
        """Yield the keys below a prefix with their values, in the order of their revisions.

        Those before the revision `start` are left out.
        """

    async def watch(self) -> None:
        """Keep a copy up to date, if the bucket has one, until this is cancelled."""

    def receive(self, message: Msg) -> None:
        """Handle a message for the copy."""


class JetStreamBucket:
    """A bucket of a NATS server. `jetstream` returns the context of the current connection."""

    def __init__(
        self,
        jetstream: Callable[[], JetStreamContext],
        name: str,
        ttl_s: float | None,
        replicas: int,
        domain: str | None = None,
    ) -> None:
        self._jetstream = jetstream
        self._written = subjects.jetstream(domain, f"$KV.{name}.")
        """Where values are sent: elsewhere than where they are stored, if they go to another domain."""
        self._config = api.KeyValueConfig(bucket=name, ttl=ttl_s, replicas=replicas)
        self.name = name

    async def open(self) -> None:
        """Make the bucket if it does not exist. An existing one stays as it is."""
        try:
            await self._jetstream().create_key_value(self._config)
        except APIError as error:
            if error.err_code != STREAM_NAME_IN_USE:
                raise _unavailable(error) from error
            # It exists with other settings, which are the operator's.
        except (nats.errors.Error, NotDelivered) as error:
            raise _unavailable(error) from error

    async def get(self, key: str) -> Entry | None:
        """Return the current value of a key, or None."""
        try:
            found = await (await self._keys()).get(key)
        except KeyNotFoundError:
            return None
        except (nats.errors.Error, NotDelivered) as error:
            raise _unavailable(error) from error
        return Entry(found.value or b"", found.revision or 0)

    async def get_all(self, keys: Sequence[str]) -> list[Entry | None]:
        """Return the current values of keys."""
        return [await self.get(key) for key in keys]

    async def recall(self, key: str) -> Entry | None:
        """Return the current value of a key, or None."""
        return await self.get(key)

    async def put(self, key: str, value: bytes) -> None:
        """Write a value, whatever the revision."""
        try:
            await (await self._keys(self._written)).put(key, value)
        except (nats.errors.Error, NotDelivered) as error:
            raise _unavailable(error) from error

    async def replace(self, key: str, value: bytes, revision: int) -> None:
        """Write a value if the key has this revision (0: no key). Raise Conflict if not."""
        try:
            await (await self._keys(self._written)).update(key, value, revision)
        except KeyWrongLastSequenceError as error:
            raise Conflict from error
        except (nats.errors.Error, NotDelivered) as error:
            raise _unavailable(error) from error

    async def delete(self, key: str, revision: int) -> None:
        """Remove the key if it has this revision. Raise Conflict if not."""
        await self.replace(key, b"", revision)

    async def watch(self) -> None:
        """Do nothing: there is no copy."""

    def receive(self, message: Msg) -> None:
        """Do nothing: there is no copy."""

    async def entries(self, prefix: str = "", start: int = 0) -> AsyncGenerator[tuple[str, Entry], None]:
        """Yield the keys below a prefix with their values, in the order of their revisions."""
        bucket = f"$KV.{self.name}."
        subject = changes_subject(self.name, f"{prefix}.>" if prefix else ">")
        # A bucket has one value of each key, so that both policies yield the same.
        by_sequence, last = api.DeliverPolicy.BY_START_SEQUENCE, api.DeliverPolicy.LAST_PER_SUBJECT
        found = stored(
            self._jetstream(),
            f"KV_{self.name}",
            subject,
            by_sequence if start else last,
            start=start or None,
        )
        try:
            async with aclosing(found) as messages:
                async for message in messages:
                    yield (
                        message.subject.removeprefix(bucket),
                        Entry(message.data, message.metadata.sequence.stream),
                    )
        except (nats.errors.Error, NotDelivered) as error:
            raise _unavailable(error) from error

    async def _keys(self, prefix: str = "") -> KeyValue:
        """Return the bucket on the current client. Values are written to subjects with this prefix."""
        ends = monotonic() + RECONNECT_S
        while True:
            try:
                jetstream = self._jetstream()
                break
            except NotDelivered:
                # Requests come back a moment before the client that we need here.
                if monotonic() > ends:
                    raise
                await sleep(RECONNECT_POLL_S)
        # As `js.key_value` makes it, without its request for the state of the bucket.
        return KeyValue(
            name=self.name,
            stream=f"KV_{self.name}",
            pre=prefix or f"$KV.{self.name}.",
            js=jetstream,
            direct=False,
        )


def _unavailable(error: Exception) -> StateUnavailable:
    return StateUnavailable(text_of(error))
