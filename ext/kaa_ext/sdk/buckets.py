"""A JetStream key-value bucket as the state of a service needs it: keys with revisions, compare and set.

Keys are those of NATS already (see state.py). A key that is deleted leaves nothing behind, not even a marker, so that a
bucket is as large as what is in it.
"""

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol

import nats.errors
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from kaa_ext.sdk.errors import NotDelivered, StateUnavailable
from kaa_ext.sdk.streams import stored

NAME_IN_USE = 10058
"""JetStream's code for a stream that exists with another configuration."""


class Entry(NamedTuple):
    """A value, and the revision that names this version of it. An empty value is a key that is being deleted."""

    value: bytes
    revision: int


class Conflict(Exception):  # noqa: N818 - an outcome, of the two that a conditional write has
    """The key has another revision than was expected."""


def changes_subject(name: str) -> str:
    """Where NATS tells of each value that a bucket takes, to those who listen at that time."""
    return f"$KV.{name}.>"


class Bucket(Protocol):
    """What `State` stands on. Each method may raise StateUnavailable."""

    async def open(self) -> None:
        """Make the bucket if it is not there."""

    async def get(self, key: str) -> Entry | None:
        """What is there now."""

    async def put(self, key: str, value: bytes) -> None:
        """Write, whatever is there."""

    async def replace(self, key: str, value: bytes, revision: int) -> None:
        """Write if the key has this revision, 0 for none; else Conflict."""

    async def delete(self, key: str, revision: int) -> None:
        """Remove the key if it has this revision; else Conflict."""

    def entries(self) -> AsyncIterator[tuple[str, Entry]]:
        """All that is there now."""


class JetStreamBucket:
    """A bucket of a NATS server. `jetstream` gives the context of the connection that there is now."""

    def __init__(
        self, jetstream: Callable[[], JetStreamContext], name: str, ttl_s: float | None, replicas: int
    ) -> None:
        self._jetstream = jetstream
        self._config = api.KeyValueConfig(bucket=name, ttl=ttl_s, replicas=replicas)
        self._name = name

    async def open(self) -> None:
        """Make the bucket if it is not there; one that is there stays as it is."""
        try:
            await self._jetstream().create_key_value(self._config)
        except APIError as error:
            if error.err_code != NAME_IN_USE:
                raise _unavailable(error) from error
            # It is there with other settings, which are then the operator's.
        except (nats.errors.Error, NotDelivered) as error:
            raise _unavailable(error) from error

    async def get(self, key: str) -> Entry | None:
        """What is there now."""
        try:
            found = await self._keys().get(key)
        except KeyNotFoundError:
            return None
        except (nats.errors.Error, NotDelivered) as error:
            raise _unavailable(error) from error
        return Entry(found.value or b"", found.revision or 0)

    async def put(self, key: str, value: bytes) -> None:
        """Write, whatever is there."""
        try:
            await self._keys().put(key, value)
        except (nats.errors.Error, NotDelivered) as error:
            raise _unavailable(error) from error

    async def replace(self, key: str, value: bytes, revision: int) -> None:
        """Write if the key has this revision, 0 for none; else Conflict."""
        try:
            await self._keys().update(key, value, revision)
        except KeyWrongLastSequenceError as error:
            raise Conflict from error
        except (nats.errors.Error, NotDelivered) as error:
            raise _unavailable(error) from error

    async def delete(self, key: str, revision: int) -> None:
        """Remove the key if it has this revision; else Conflict."""
        try:
            # NATS removes without comparing, but only up to a revision. So the empty value comes first.
            emptied = await self._keys().update(key, b"", revision)
            await self._jetstream().purge_stream(
                f"KV_{self._name}", seq=emptied + 1, subject=f"$KV.{self._name}.{key}"
            )
        except KeyWrongLastSequenceError as error:
            raise Conflict from error
        except (nats.errors.Error, NotDelivered) as error:
            raise _unavailable(error) from error

    async def entries(self) -> AsyncIterator[tuple[str, Entry]]:
        """All that is there now."""
        prefix = f"$KV.{self._name}."
        try:
            found = stored(
                self._jetstream(), f"KV_{self._name}", f"{prefix}>", api.DeliverPolicy.LAST_PER_SUBJECT
            )
            async for message in found:
                yield (
                    message.subject.removeprefix(prefix),
                    Entry(message.data, message.metadata.sequence.stream),
                )
        except (nats.errors.Error, NotDelivered) as error:
            raise _unavailable(error) from error

    def _keys(self) -> KeyValue:
        # What `js.key_value` makes, without asking the server first what it says of the bucket.
        return KeyValue(
            name=self._name,
            stream=f"KV_{self._name}",
            pre=f"$KV.{self._name}.",
            js=self._jetstream(),
            direct=False,
        )


def _unavailable(error: Exception) -> StateUnavailable:
    return StateUnavailable(str(error) or type(error).__name__)
