"""A bounded cache of answers, each of which is valid until a time of its own."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class _Entry(NamedTuple, Generic[Value]):
    value: Value
    valid_until: float
    generation: int


class Cache(Generic[Key, Value]):
    """At most `capacity` values; at the bound, the least recently used one is evicted.

    `forgotten` is called with key and value of each entry that is removed, for any reason.

    No method takes longer the more values there are: those that `clear` has made invalid are removed when they are
    looked for, or evicted.
    """

    def __init__(
        self, capacity: int, forgotten: Callable[[Key, Value], None] = lambda key, value: None
    ) -> None:
        self._capacity = capacity
        self._forgotten = forgotten
        self._entries: OrderedDict[Key, _Entry[Value]] = OrderedDict()
        self._generation = 0
        self.hits = 0
        self.misses = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        """Return the value of a key if it is there and still valid, else None."""
        entry = self._entries.get(key)
        if entry is not None and (
            entry.generation != self._generation or entry.valid_until <= time.monotonic()
        ):
            self.forget(key)
            entry = None
        if entry is None:
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return entry.value

    def put(self, key: Key, value: Value, valid_until: float) -> None:
        """Store a value in place of an older one."""
        self.forget(key)
        if len(self._entries) >= self._capacity:
            self.evicted += 1
            self.forget(next(iter(self._entries)))
        self._entries[key] = _Entry(value, valid_until, self._generation)

    def forget(self, key: Key) -> None:
        """Remove a key, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._forgotten(key, entry.value)

    def clear(self) -> None:
        """Let no value that is there be valid any more."""
        self._generation += 1
